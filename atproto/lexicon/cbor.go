package lexicon

// The DAG-CBOR that the data model needs is small, and the decoders at hand
// accept unsorted keys, long integers and trailing bytes: a record that reads
// back with another CID. So encoder and decoder are here, and strict.

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
