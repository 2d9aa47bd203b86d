package lexicon

// The data model needs a small part of DAG-CBOR. Available decoders accept unsorted
// keys, long integers and trailing bytes, so that a decoded record encodes to another
// CID. The encoder and decoder here are strict.

// Major types of CBOR, in the upper three bits of an item's first byte.
const (
	majorUint = iota << 5
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

const (
	simpleFalse = majorSimple | 20
	simpleTrue  = majorSimple | 21
	simpleNull  = majorSimple | 22
	tagCID      = 42
)
