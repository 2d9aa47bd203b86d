package lexicon

import "encoding/json"

// Profile is the app.bsky.actor.profile record of an account, whose key is
// "self".
type Profile struct {
	DisplayName string // at most 64 graphemes
	Description string // at most 256 graphemes
	Bot         bool   // the account labels itself as automated
	CreatedAt   string // RFC 3339; may be empty
}

// MarshalJSON encodes the record, with its $type.
func (p Profile) MarshalJSON() ([]byte, error) {
	type value struct {
		Val string `json:"val"`
	}
	type selfLabels struct {
		Type   string  `json:"$type"`
		Values []value `json:"values"`
	}
	record := struct {
		Type        string      `json:"$type"`
		DisplayName string      `json:"displayName,omitempty"`
		Description string      `json:"description,omitempty"`
		Labels      *selfLabels `json:"labels,omitempty"`
		CreatedAt   string      `json:"createdAt,omitempty"`
	}{Type: NSIDProfile, DisplayName: p.DisplayName, Description: p.Description, CreatedAt: p.CreatedAt}
	if p.Bot {
		record.Labels = &selfLabels{"com.atproto.label.defs#selfLabels", []value{{"bot"}}}
	}
	return json.Marshal(record)
}
