package migrations

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// A guest gets no verification code, and used up those of whoever has the number.
func init() {
	const id = "gwlimitsmsverif"
	change := func(txApp core.App, from, to string) error {
		r, err := txApp.FindRecordById("gw_rate_limits", id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // somebody has deleted it
		}
		if err != nil {
			return fmt.Errorf("find rate limit %s: %w", id, err)
		}
		if r.GetString("audience") != from {
			return nil // somebody has decided otherwise
		}
		r.Set("audience", to)
		if err := txApp.Save(r); err != nil {
			return fmt.Errorf("save rate limit %s: %w", id, err)
		}
		return nil
	}
	pbmigrations.Register(func(txApp core.App) error {
		return change(txApp, "all", "signed_in")
	}, func(txApp core.App) error {
		return change(txApp, "signed_in", "all")
	})
}
