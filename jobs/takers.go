package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pocketbase/pocketbase/core"
)

// Work is shared work of one key in one queue.
type Work struct{ Queue, Share string }

// takersFor is how long what [Client.Takers] read is believed.
const takersFor = 2 * time.Second

// Takers returns which processes take shared work right now: a host for each of them,
// so that a host may be there several times. It is never older than 2 seconds; a
// process that was killed is in it for 15. Empty on SQLite.
func (c *Client) Takers(ctx context.Context) (map[Work][]string, error) {
	if !c.shared {
		return map[Work][]string{}, nil
	}
	c.takers.Lock()
	defer c.takers.Unlock()
	if time.Since(c.takers.read) < takersFor {
		return maps.Clone(c.takers.hosts), nil
	}
	found, err := c.engine.query(ctx, "SELECT host, array_to_string(queues, ' '), array_to_string(shares, ' '), trouble FROM groundwork_nodes WHERE kind = $1 AND seen_at >= "+
		c.engine.ago(silentFor)+" ORDER BY host, id", nodeWorker)
	if err != nil {
		return nil, fmt.Errorf("find who takes shared work: %w", err)
	}
	defer found.Close()
	hosts, troubled := map[Work][]string{}, map[string]string{}
	for found.Next() {
		var host, queues, shares, trouble string
		if err := found.Scan(&host, &queues, &shares, &trouble); err != nil {
			return nil, fmt.Errorf("find who takes shared work: %w", err)
		}
		for _, queue := range strings.Fields(queues) {
			for _, share := range strings.Fields(shares) {
				work := Work{queue, share}
				hosts[work] = append(hosts[work], host)
			}
		}
		if trouble != "" {
			troubled[host] = trouble
		}
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("find who takes shared work: %w", err)
	}
	c.tellTroubled(troubled)
	c.takers.hosts, c.takers.read = hosts, time.Now()
	return maps.Clone(hosts), nil
}

// tellTroubled tells of hosts whose workers are in trouble, once, and when they are not
// any more. The caller holds the lock.
func (c *Client) tellTroubled(now map[string]string) {
	for host, trouble := range now {
		if c.takers.troubled[host] == "" {
			c.log.Error("a worker's machine is in trouble", "host", host, "trouble", trouble)
		}
	}
	for host := range c.takers.troubled {
		if now[host] == "" {
			c.log.Info("a worker's machine is well again, or its worker has ended", "host", host)
		}
	}
	c.takers.troubled = now
}

// Machine is a host on which workers take shared work.
type Machine struct {
	Host string

	// Trouble is what its workers say is wrong with it, in one sentence that names it;
	// empty when all is well.
	Trouble string
}

// Machines returns the hosts of [Client.Takers], by name.
func (c *Client) Machines(ctx context.Context) ([]Machine, error) {
	takers, err := c.Takers(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, hosts := range takers {
		for _, host := range hosts {
			all[host] = ""
		}
	}
	c.takers.Lock()
	maps.Copy(all, c.takers.troubled)
	c.takers.Unlock()
	machines := make([]Machine, 0, len(all))
	for _, host := range slices.Sorted(maps.Keys(all)) {
		machines = append(machines, Machine{host, all[host]})
	}
	return machines, nil
}

// SetTrouble says what is wrong with this machine, in one sentence that names it; empty
// when all is well. Servers read it with the next sign of life, within 2 seconds.
func (r *Remote) SetTrouble(sentence string) { r.trouble.Store(&sentence) }

// BegunBy is [Begun] for a job that is not this one. Of a job that is over it is final:
// nothing is begun any more.
func BegunBy(ctx context.Context, app core.App, id string) (begun map[string]bool, err error) {
	err = withJob(ctx, app, id, func(p place, job int64) error {
		begun, err = readMarks(ctx, p.engine, job)
		return err
	})
	return begun, err
}

// ErrTakenAway means that the job is not this attempt's any more: it was given to
// another process, or cancelled.
var ErrTakenAway = errors.New("the job is not this attempt's any more: it was given to another process, or cancelled")
