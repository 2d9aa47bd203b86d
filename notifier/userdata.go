package notifier

import (
	"github.com/tidings-dev/tidings/notifier/journal"
	"github.com/tidings-dev/tidings/notifier/userdata"
)

// UserData returns the data of accounts.
func (n *Notifier) UserData() *userdata.Data {
	return &userdata.Data{
		State: n.state, Usage: n.usage, Journal: n.journal, Calls: n.inbound, Clock: n.clock,
		Recorded: n.noteFreeing, Metrics: n.metrics, Log: n.log,
	}
}

// Forgotten returns a channel that is closed when the records of another owner are deleted
// at its request.
func (n *Notifier) Forgotten() <-chan struct{} { return n.forgotten.Wait() }

// Counted returns the sequence number of the last push event that is counted.
func (n *Notifier) Counted() uint64 { return n.counter.Latest(uint8(journal.Pushes)) }

// ownerOf returns the DID of a repository's owner, "" if it is not known.
func (n *Notifier) ownerOf(repository string) string {
	owner := n.owners.Of(repository)
	if owner.Handle != "" {
		owner.DID, _ = n.handles.Cached(owner.Handle)
	}
	return owner.DID
}
