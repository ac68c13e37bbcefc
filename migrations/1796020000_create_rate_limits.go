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
			{"id": "gwlimitcodes000", "name": "Wrong codes", "route": "POST /api/collections/*/auth-with-otp", "keyBy": "account", "counts": "failures",
				"limit": 5, "windowSeconds": tenMinutes, "note": "For each account, wherever the tries come from; the code itself stops working at the fifth. An address that the account was signed in from before has five of its own, so that nobody can lock the owner out."},
			{"id": "gwlimitphonever", "name": "Wrong verification codes", "route": "POST /api/collections/*/confirm-phone-verification", "keyBy": "account", "counts": "failures",
				"limit": 5, "windowSeconds": tenMinutes, "note": "As for wrong codes at the sign-in."},
			{"id": "gwlimitpassword", "name": "Wrong passwords", "route": "POST /api/collections/*/auth-with-password", "keyBy": "account", "counts": "failures",
				"limit": 10, "windowSeconds": tenMinutes, "note": "For each account, wherever the tries come from. An address that the account was signed in from before has ten of its own."},
			{"id": "gwlimitoldpassw", "name": "Wrong old passwords", "route": "PATCH /api/collections/*/records/*", "keyBy": "account", "counts": "failures",
				"limit": 10, "windowSeconds": tenMinutes, "note": "Changes of a password, alone or in a batch. Other changes of a record do not count here."},
			{"id": "gwlimitmailcode", "name": "Codes by e-mail", "route": "POST /api/collections/*/request-otp", "keyBy": "account", "counts": "all",
				"limit": 5, "windowSeconds": hour, "note": "For each account or e-mail address."},
			{"id": "gwlimitsmscodes", "name": "Codes by SMS", "route": "POST /api/collections/*/request-phone-otp", "keyBy": "account", "counts": "all",
				"limit": 5, "windowSeconds": hour, "note": "For each account or phone number. Each one costs money."},
			{"id": "gwlimitsmsverif", "name": "Verification codes by SMS", "route": "POST /api/collections/*/request-phone-verification", "keyBy": "account", "counts": "all",
				"limit": 5, "windowSeconds": hour, "note": "For each phone number, whoever asks."},
			{"id": "gwlimitsmsasker", "name": "Verification codes per person", "route": "POST /api/collections/*/request-phone-verification", "keyBy": "user", "counts": "all",
				"limit": 10, "windowSeconds": hour, "note": "Whichever numbers one person asks for."},
			{"id": "gwlimitguests00", "name": "Guests", "route": "/*", "audience": "guest", "keyBy": "ip", "counts": "all",
				"limit": 300, "windowSeconds": 10, "note": "Keeps one address from using up the server. An IPv6 address counts with its whole /64."},
			{"id": "gwlimitsignedin", "name": "Signed in", "route": "/*", "audience": "signed_in", "keyBy": "user", "counts": "all",
				"limit": 600, "windowSeconds": 10, "note": "Many people behind one address do not disturb each other once they are signed in."},
		} {
			r := core.NewRecord(c)
			r.Set("audience", "all")
			r.Load(row)
			r.Set("enabled", true)
			if err := txApp.Save(r); err != nil {
				return fmt.Errorf("create rate limit %s: %w", row["name"], err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		return deleteCollections(txApp, "gw_rate_limits")
	})
}
