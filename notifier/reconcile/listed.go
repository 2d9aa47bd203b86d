package reconcile

import (
	"github.com/tidings-dev/tidings/notifier/state"
)

// While stores are compared, rows of the state have the number of the listed records of each
// manifest. The records of a push are adjacent in a list, so a manifest has one commit.

func listedKey(owner, digest string) string { return state.Listed + digest + " " + owner }

func (c *checker) clearListed() error {
	var b state.Batch
	b.DeleteRange(state.Prefix(state.Listed))
	return c.State.Commit(&b, state.NoSync)
}

// noteListed counts a record of a manifest that the account lists.
func (c *checker) noteListed(owner, digest string) error {
	key := listedKey(owner, digest)
	if key != c.last {
		if err := c.addListed(); err != nil {
			return err
		}
		c.last = key
	}
	c.number++
	return nil
}

// addListed adds the records of the last manifest to its row.
func (c *checker) addListed() error {
	if c.number == 0 {
		return nil
	}
	before, err := state.Number(c.batch.Get(c.State, []byte(c.last)))
	if err != nil {
		return err
	}
	c.batch.SetNumber([]byte(c.last), before+c.number)
	c.number = 0
	if c.noted++; c.noted%rebuildBatch != 0 {
		return nil
	}
	err = c.State.Commit(&c.batch, state.NoSync)
	c.batch = state.Batch{}
	return err
}

// commitListed commits the last rows.
func (c *checker) commitListed() error {
	if err := c.addListed(); err != nil {
		return err
	}
	err := c.State.Commit(&c.batch, state.NoSync)
	c.batch = state.Batch{}
	return err
}

// listed returns how many records of a manifest were listed.
func (c *checker) listed(owner, digest string) (int, error) {
	n, err := state.Number(c.State.Get([]byte(listedKey(owner, digest))))
	return int(n), err
}
