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

// Clean deletes what is kept no longer, now.
func (c *Client) Clean() error { return c.clean(context.Background()) }
