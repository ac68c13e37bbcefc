package schedules

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// What a purge can delete.
const (
	purgeNotifications = "notifications" // that have ended, with their deliveries
	purgeAccount       = "account_messages"
	purgeDevices       = "devices" // that are gone or signed out
)

// leastDays keeps what caps and receipts still go by.
const leastDays = 7

// purgeAction deletes what is old.
type purgeAction struct{}

func (purgeAction) keys() []Key {
	return []Key{
		{"what", `a list of what is deleted: "notifications" (that have ended, with their deliveries), "account_messages" (the deliveries of codes and password mails), "devices" (that no push reaches any more); required`},
		{"olderThanDays", "how old it has to be, in days, at least 7; required"},
	}
}

func (purgeAction) read(raw string) (what []string, days int64, err error) {
	p := readPayload(raw, purgeAction{}.keys())
	if p.err == nil && !p.has("olderThanDays") {
		p.fail(`Say how old it has to be, such as "olderThanDays": 90.`)
	}
	days = p.number("olderThanDays", leastDays, 36500, 0)
	return p.among("what", purgeNotifications, purgeAccount, purgeDevices), days, p.err
}

func (a purgeAction) check(_ core.App, s *Schedule, _ checking) error {
	_, _, err := a.read(s.GetString("payload"))
	return err
}

func (a purgeAction) run(ctx context.Context, c *call) (string, error) {
	what, days, err := a.read(c.schedule.GetString("payload"))
	if err != nil {
		return "", err
	}
	before := c.runner.o.Now().AddDate(0, 0, -int(days))
	var told []string
	for _, one := range what {
		var n int
		var err error
		switch one {
		case purgeNotifications:
			n, err = notifications.PurgeNotifications(ctx, c.app, before)
			told = append(told, countOf(n, "notification"))
		case purgeAccount:
			n, err = notifications.PurgeAccountMessages(ctx, c.app, before)
			told = append(told, countOf(n, "account message"))
		case purgeDevices:
			n, err = purgeGoneDevices(ctx, c.app, before)
			told = append(told, countOf(n, "device"))
		}
		if err != nil {
			return "Deleted " + strings.Join(told, ", ") + ".", err
		}
	}
	return "Deleted " + list(told, "and") + ".", nil
}

func purgeGoneDevices(ctx context.Context, app core.App, before time.Time) (n int, err error) {
	for {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		gone, err := app.FindRecordsByFilter(notifications.CollectionDevices, "(status = 'gone' || status = 'signed_out') && updated < {:before}", "", 100, 0,
			dbx.Params{"before": dateTime(before).String()})
		if err != nil {
			return n, fmt.Errorf("find gone devices: %w", err)
		}
		if len(gone) == 0 {
			return n, nil
		}
		for _, r := range gone {
			if err := app.Delete(r); err != nil {
				return n, fmt.Errorf("delete device %s: %w", r.Id, err)
			}
			n++
		}
	}
}
