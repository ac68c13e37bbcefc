package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pocketbase/pocketbase/core"
	"github.com/riverqueue/river"
)

// place is where jobs of an app are.
type place struct {
	engine
	origin string
}

// withPlace runs do with the database that the app's jobs go to: that of the client
// in this process, or a connection of its own. Nothing is run when jobs were never
// in it.
func withPlace(ctx context.Context, app core.App, do func(place) error) error {
	if c, ok := app.Store().Get(storeKeyClient).(*Client); ok {
		return ifUsed(ctx, place{c.engine, c.origin}, do)
	}
	if address, _ := app.Store().Get(StoreKeyDatabaseURL).(string); address != "" {
		origin, err := installation(app)
		if err != nil {
			return err
		}
		db, err := openPostgres(address)
		if err != nil {
			return err
		}
		e, err := newPostgres(db, idle())
		if err == nil {
			err = ifUsed(ctx, place{e, origin}, do)
		}
		return errors.Join(err, db.close())
	}
	return withFile(ctx, app, do)
}

// withPlaces runs do with every database that has jobs of the app: beside Postgres
// that is the file, until its jobs have moved.
func withPlaces(ctx context.Context, app core.App, do func(place) error) error {
	if err := withPlace(ctx, app, do); err != nil {
		return err
	}
	c, _ := app.Store().Get(storeKeyClient).(*Client)
	address, _ := app.Store().Get(StoreKeyDatabaseURL).(string)
	if c != nil && !c.shared || c == nil && address == "" {
		return nil // it was the file
	}
	return withFile(ctx, app, do)
}

// withFile runs do with jobs.db, if there is one.
func withFile(ctx context.Context, app core.App, do func(place) error) error {
	if _, err := os.Stat(filepath.Join(app.DataDir(), FileName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := openSQLite(app.DataDir())
	if err != nil {
		return err
	}
	e, _, err := newSQLite(db, idle())
	if err == nil {
		err = ifUsed(ctx, place{e, ""}, do)
	}
	return errors.Join(err, db.close())
}

// idle is the configuration of a client that works nothing.
func idle() *river.Config {
	return &river.Config{Logger: slog.New(slog.DiscardHandler), SkipUnknownJobCheck: true}
}

func ifUsed(ctx context.Context, p place, do func(place) error) error {
	used, err := p.used(ctx)
	if err != nil {
		return fmt.Errorf("look into jobs database: %w", err)
	}
	if !used {
		return nil
	}
	return do(p)
}
