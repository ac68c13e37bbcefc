package migrations

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// Asking for another address mails whomever one likes: a few times an hour, whoever asks.
// The link in that mail asks for the password, and so can be used to guess it.
func init() {
	rows := []map[string]any{
		{"id": "gwlimitmailpass", "name": "Wrong passwords at an e-mail change", "route": "POST /api/collections/*/confirm-email-change", "keyBy": "account",
			"audience": "all", "counts": "failures", "limit": 10, "windowSeconds": 600,
			"note": "For each account, as for wrong passwords at the sign-in: the link in the mail asks for the password."},
		{"id": "gwlimitmailaddr", "name": "Mails to a new address", "keyBy": "body:newEmail",
			"note": "For each new address, whoever asks: its owner may have nothing to do with it."},
		{"id": "gwlimitmailuser", "name": "Changes of address per person", "keyBy": "user",
			"note": "For each person, whatever addresses they ask for."},
	}
	pbmigrations.Register(func(txApp core.App) error {
		limits, err := txApp.FindCollectionByNameOrId("gw_rate_limits")
		if err != nil {
			return fmt.Errorf("find rate_limits: %w", err)
		}
		for _, row := range rows {
			r := core.NewRecord(limits)
			r.Load(map[string]any{"route": "POST /api/collections/*/request-email-change", "audience": "signed_in", "counts": "all", "limit": 5, "windowSeconds": 3600, "enabled": true})
			r.Load(row)
			if err := txApp.Save(r); err != nil {
				return fmt.Errorf("create rate limit %s: %w", r.GetString("name"), err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, row := range rows {
			r, err := txApp.FindRecordById("gw_rate_limits", row["id"].(string))
			if errors.Is(err, sql.ErrNoRows) {
				continue // somebody has deleted it
			}
			if err == nil {
				err = txApp.Delete(r)
			}
			if err != nil {
				return fmt.Errorf("delete rate limit %s: %w", row["id"], err)
			}
		}
		return nil
	})
}
