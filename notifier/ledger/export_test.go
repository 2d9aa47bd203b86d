package ledger

var Decode = decode

func (e Entry) Encoded() []byte { return e.encode() }
