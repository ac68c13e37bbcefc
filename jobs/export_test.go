package jobs

import (
	"context"
	"time"
)

func init() {
	stuckAfter = 300 * time.Millisecond
	firstLook = 2 * time.Minute // what starts has started, however busy the machine is
}

// CleanJSON is cleanJSON.
var CleanJSON = cleanJSON

// Page is how many jobs are taken from the outbox next, and how many bytes of args they
// have.
func (c *Client) Page() (n, bytes int, err error) {
	rows, err := c.nextRows()
	for _, row := range rows {
		bytes += len(row.Args)
	}
	return len(rows), bytes, err
}

// Clean deletes what is kept no longer, now.
func (c *Client) Clean() error { return c.clean(context.Background()) }
