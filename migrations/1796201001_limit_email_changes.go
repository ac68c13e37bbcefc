package migrations

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// The link that changes an address asks for the password, and so can be used to guess it.
func init() {
	const id = "gwlimitmailpass"
	pbmigrations.Register(func(txApp core.App) error {
		limits, err := txApp.FindCollectionByNameOrId("gw_rate_limits")
		if err != nil {
			return fmt.Errorf("find rate_limits: %w", err)
		}
		r := core.NewRecord(limits)
		r.Load(map[string]any{"id": id, "name": "Wrong passwords at an e-mail change", "route": "POST /api/collections/*/confirm-email-change",
			"audience": "all", "keyBy": "account", "counts": "failures", "limit": 10, "windowSeconds": 600, "enabled": true,
			"note": "For each account, as for wrong passwords at the sign-in: the link in the mail asks for the password."})
		if err := txApp.Save(r); err != nil {
			return fmt.Errorf("create rate limit %s: %w", r.GetString("name"), err)
		}
		return nil
	}, func(txApp core.App) error {
		r, err := txApp.FindRecordById("gw_rate_limits", id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil // somebody has deleted it
		}
		if err != nil {
			return fmt.Errorf("find rate limit %s: %w", id, err)
		}
		return txApp.Delete(r)
	})
}
