package jobs

import (
	"context"
	"time"
)

func init() { stuckAfter = 300 * time.Millisecond }

// CleanJSON is cleanJSON.
var CleanJSON = cleanJSON

// Clean deletes what is kept no longer, now.
func (c *Client) Clean() error { return c.clean(context.Background()) }
