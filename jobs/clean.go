package jobs

import (
	"context"
	"fmt"
	"time"
)

const (
	cleanEvery = 10 * time.Minute

	// cleanPage is how many jobs are deleted at a time: others want to write too.
	cleanPage = 1000

	keepPlain   = 24 * time.Hour      // of what is done and has nothing to tell
	keepFailed  = 7 * 24 * time.Hour  // of what was given up
	keepRelayed = 30 * 24 * time.Hour // of what was taken from the outbox
)

// cleanLoop deletes what is kept no longer.
func (c *Client) cleanLoop(ctx context.Context) {
	says := trouble{log: c.log, begins: "Finished jobs cannot be deleted. It is tried again.", ends: "Finished jobs are deleted again."}
	for {
		says.tell(ctx, c.clean(ctx))
		if !wait(ctx, cleanEvery) {
			return
		}
	}
}

func (c *Client) clean(ctx context.Context) error {
	ended := "state IN ('completed', 'cancelled') AND finalized_at < "
	for _, which := range []string{
		ended + c.engine.ago(keepPlain) + " AND metadata->>'output' IS NULL AND metadata->>'gwOwner' IS NULL",
		ended + c.engine.ago(c.cfg.KeepResults),
		"state = 'discarded' AND finalized_at < " + c.engine.ago(keepFailed),
	} {
		for {
			n, err := c.engine.exec(ctx, fmt.Sprintf("DELETE FROM river_job WHERE id IN (SELECT id FROM river_job WHERE %s AND %s LIMIT %d)", which, mine(c.origin), cleanPage))
			if err != nil {
				return fmt.Errorf("delete finished jobs: %w", err)
			}
			if n < cleanPage {
				break
			}
		}
	}
	if _, err := c.engine.exec(ctx, "DELETE FROM groundwork_marks WHERE NOT EXISTS (SELECT 1 FROM river_job WHERE river_job.id = groundwork_marks.job)"); err != nil {
		return fmt.Errorf("delete marks of deleted jobs: %w", err)
	}
	if _, err := c.engine.exec(ctx, "DELETE FROM groundwork_relayed WHERE at < $1", time.Now().Add(-keepRelayed).Unix()); err != nil {
		return fmt.Errorf("prune relay table: %w", err)
	}
	return nil
}
