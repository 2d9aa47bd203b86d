package lexicon

// ErrorInvalidUserDid is the error of io.atcr.hold.getQuota for an invalid DID.
const ErrorInvalidUserDid = "InvalidUserDid"

// Quota is the output of io.atcr.hold.getQuota.
type Quota struct {
	UserDID     string `json:"userDid"`
	UniqueBlobs int64  `json:"uniqueBlobs"`
	TotalSize   int64  `json:"totalSize"`       // bytes
	Limit       *int64 `json:"limit,omitempty"` // bytes; nil: no limit
	Tier        string `json:"tier,omitempty"`
}
