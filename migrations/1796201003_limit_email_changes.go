package migrations

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

// Asking for another address mails whomever one likes: a few times an hour, whoever asks.
func init() {
	rows := []map[string]any{
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
