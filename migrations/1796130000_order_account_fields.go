package migrations

import (
	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
)

func init() {
	orders := []fieldOrder{
		{
			collection: "gw_sessions",
			before:     []string{"id", "collectionRef", "recordRef", "kind", "name", "ip", "userAgent", "lastSeenAt", "expiresAt", "created", "updated"},
			after:      []string{"id", "name", "recordRef", "kind", "ip", "lastSeenAt", "expiresAt", "collectionRef", "userAgent", "created", "updated"},
		},
		{
			collection: "gw_rate_limits",
			before:     []string{"id", "name", "route", "audience", "keyBy", "counts", "limit", "windowSeconds", "enabled", "note", "created", "updated"},
			after:      []string{"id", "name", "enabled", "limit", "windowSeconds", "route", "audience", "keyBy", "counts", "note", "created", "updated"},
		},
		{collection: "gw_erasures"}, // its order is right
	}
	helps := []fieldHelp{
		{
			"gw_sessions", "name",
			"What signed in, such as Chrome on macOS.",
			"What signed in, such as Chrome on macOS. Deleting the record signs it out at once.",
		},
		{
			"gw_sessions", "recordRef",
			"The id of the account that is signed in.",
			"The id of the account that is signed in; search for it in users, or where the account is, to see who that is.",
		},
		{
			"gw_rate_limits", "enabled",
			"Whether this limit is in force.",
			"Whether this limit is in force. A new one is not until you switch it on.",
		},
		{
			"gw_rate_limits", "route",
			"The requests it is about, such as POST /api/collections/users/auth-with-otp; * stands for anything, and the method may be left out.",
			"The requests it is about, such as POST /api/collections/users/auth-with-otp; * stands for one part, at the end for all that follows, and the method may be left out.",
		},
		{
			"gw_rate_limits", "audience",
			"Whose requests count: people without an account in use (guest), signed-in people (signed_in), or all.",
			"Whose requests count: people without an account in use (guest), signed-in people (signed_in), or all, which is also what empty means.",
		},
		{
			"gw_rate_limits", "keyBy",
			"Who shares one count: everybody at one address (ip), each user, each account that a sign-in is about, everybody (global), or each value of a field (body:phone).",
			"Who shares one count. Write ip (each address), user (each signed-in person), account (each account that a sign-in is about), global (everybody), or body: and a field, such as body:phone.",
		},
		{
			"gw_rate_limits", "counts",
			"Whether every request counts (all), or only those that fail, such as wrong codes (failures).",
			"Whether every request counts (all, or empty), or only those that fail, such as wrong codes (failures).",
		},
		{
			"gw_erasures", "origin",
			"Who asked for it: the person, a superuser by the erase route, the command line, or somebody who deleted the record.",
			"Who asked for it: the person (self), a superuser with Erase this person, the command line, or somebody who deleted the record (deletion).",
		},
		{
			"gw_erasures", "counts",
			"How many rows and files were deleted or emptied, by kind.",
			"How many records and rows were deleted or emptied, by collection or kind.",
		},
	}

	pbmigrations.Register(func(txApp core.App) error {
		return arrangeFields(txApp, orders, helps)
	}, func(txApp core.App) error {
		back := make([]fieldOrder, len(orders))
		for i, o := range orders {
			back[i] = fieldOrder{o.collection, o.after, o.before}
		}
		helpBack := make([]fieldHelp, len(helps))
		for i, h := range helps {
			helpBack[i] = fieldHelp{h.collection, h.field, h.after, h.before}
		}
		return arrangeFields(txApp, back, helpBack)
	})
}
