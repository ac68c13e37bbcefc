package demo

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// Password signs everybody in the demo in.
const Password = "a-demo-password"

// ErrFilled means that the shop is there already; nothing was changed.
var ErrFilled = errors.New("the demo shop is in this data folder already")

// ErrUsed means that there is something in the data folder that somebody made.
var ErrUsed = errors.New("this data folder is in use")

// Fill makes the shop in one transaction: it is there whole or not at all. What it
// sells was delivered before now, but for one order. The error is [ErrFilled], or
// wraps [ErrUsed], when the data folder is not empty; superusers may be in it.
func Fill(app core.App, now time.Time) error {
	return app.RunInTransaction(func(txApp core.App) error {
		if err := checkEmpty(txApp); err != nil {
			return err
		}
		users, err := notifications.UsersCollection(txApp)
		if err != nil {
			return err
		}
		s := &shop{app: txApp, users: users, now: now.UTC()}
		// Messages come last: what was bought before there are triggers tells nobody.
		for _, step := range []func() error{s.addCollections, s.addPeople, s.addProducts, s.addOrders, s.addMessages} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkEmpty refuses a data folder in which the demo would get in the way of
// somebody's work.
func checkEmpty(app core.App) error {
	collections, err := app.FindAllCollections()
	if err != nil {
		return fmt.Errorf("read collections: %w", err)
	}
	users, err := notifications.UsersCollection(app)
	if err != nil {
		return err
	}
	var own []string
	for _, c := range collections {
		switch {
		case c.Id == productsID:
			return ErrFilled
		case !c.System && c.Id != users.Id && !strings.HasPrefix(c.Id, "gw_"):
			own = append(own, c.Name)
		}
	}
	if len(own) > 0 {
		return fmt.Errorf("%w: it has the collection %s", ErrUsed, strings.Join(own, ", "))
	}
	fromTheStart := dbx.Not(dbx.HashExp{"id": "gwwelcome000000"})
	for _, made := range []struct {
		collection string
		only       dbx.Expression
	}{
		{users.Id, nil}, {notifications.CollectionNotifications, nil},
		{notifications.CollectionTemplates, fromTheStart}, {notifications.CollectionTriggers, fromTheStart},
	} {
		c, err := app.FindCachedCollectionByNameOrId(made.collection)
		if err != nil {
			return fmt.Errorf("find collection %s: %w", made.collection, err)
		}
		query := app.RecordQuery(c).Select("COUNT(*)")
		if made.only != nil {
			query.AndWhere(made.only)
		}
		var n int
		if err := query.Row(&n); err != nil {
			return fmt.Errorf("count %s: %w", c.Name, err)
		}
		if n > 0 {
			return fmt.Errorf("%w: there are records in %s", ErrUsed, c.Name)
		}
	}
	return nil
}

// shop is what the steps share.
type shop struct {
	app      core.App
	users    *core.Collection
	now      time.Time
	people   map[string]string // id by name
	products map[string]string // id by name
}

// save stores a new record, as an owner would.
func (s *shop) save(collection string, fields map[string]any) (string, error) {
	c, err := s.app.FindCachedCollectionByNameOrId(collection)
	if err != nil {
		return "", fmt.Errorf("find collection %s: %w", collection, err)
	}
	r := core.NewRecord(c)
	r.Load(fields)
	if err := s.app.Save(r); err != nil {
		return "", fmt.Errorf("make a record of %s: %w", c.Name, err)
	}
	return r.Id, nil
}
