package records

import (
	"context"

	"github.com/tidings-dev/tidings/atproto/lexicon"
	"github.com/tidings-dev/tidings/atproto/repo"
	"github.com/tidings-dev/tidings/notifier/delivery"
	"github.com/tidings-dev/tidings/notifier/usage"
)

// EachWritten calls visit with the layer records of each push of a manifest after a key:
// those of one manifest with consecutive keys. visit must not keep the slice.
func EachWritten(ctx context.Context, account *delivery.Repo, after string, visit func([]Layer) error) error {
	var push []Layer
	err := account.EachAfter(ctx, lexicon.NSIDLayer, after, func(record repo.Record) error {
		r, ok := ReadLayer(record)
		if !ok {
			return nil
		}
		if k := len(push); k > 0 {
			last := push[k-1]
			if r.Owner == last.Owner && r.Manifest == last.Manifest && r.ClockID == last.ClockID && r.Micros == last.Micros+1 {
				push = append(push, r)
				return nil
			}
			if err := visit(push); err != nil {
				return err
			}
		}
		push = append(push[:0], r)
		return nil
	})
	if err != nil || len(push) == 0 {
		return err
	}
	return visit(push)
}

// UsageOf are the layers of records, as they count towards their owner's usage.
func UsageOf(push []Layer) []usage.Layer {
	layers := make([]usage.Layer, len(push))
	for i := range push {
		layers[i] = push[i].Layer
	}
	return layers
}
