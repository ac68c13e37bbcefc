package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		// The rules stay empty: superusers only.
		c := newCollection("gw_rate_limits", "rate_limits")
		addFields(c,
			requiredText("name", 100, "What this limit is for; apps read it in the RateLimit headers of an answer."),
			requiredText("route", 300, "The requests it is about, such as POST /api/collections/users/auth-with-otp; * stands for anything, and the method may be left out."),
			oneOf("audience", "Whose requests count: people without an account in use (guest), signed-in people (signed_in), or all.", "guest", "signed_in", "all"),
			requiredText("keyBy", 120, "Who shares one count: everybody at one address (ip), each user, each account that a sign-in is about, everybody (global), or each value of a field (body:phone)."),
			oneOf("counts", "Whether every request counts (all), or only those that fail, such as wrong codes (failures).", "all", "failures"),
			count("limit", "How many may come within the window; the next one is refused until one of them is old enough."),
			count("windowSeconds", "The length of the window in seconds, looking back from each request: 600 is ten minutes."),
			boolField("enabled", "Whether this limit is in force."),
			text("note", 2000, "For yourself: why this limit is as it is."),
		)
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create rate_limits: %w", err)
		}

		const (
			tenMinutes = 600
			hour       = 3600
		)
		for _, row := range []map[string]any{
			{"id": "gwlimitguests00", "name": "Guests", "route": "/*", "audience": "guest", "keyBy": "ip", "counts": "all", "limit": 300, "windowSeconds": 10,
				"note": "Keeps one address from using up the server. An IPv6 address counts with its whole /64."},
			{"id": "gwlimitsignedin", "name": "Signed in", "route": "/*", "audience": "signed_in", "keyBy": "user", "counts": "all", "limit": 600, "windowSeconds": 10,
				"note": "Many people behind one address do not disturb each other once they are signed in."},
		} {
			r := core.NewRecord(c)
			r.Load(row)
			r.Set("enabled", true)
			if err := txApp.Save(r); err != nil {
				return fmt.Errorf("create rate limit %s: %w", row["name"], err)
			}
		}
		_, _ = tenMinutes, hour
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_rate_limits")
	})
}
