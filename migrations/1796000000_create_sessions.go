package migrations

import (
	"fmt"

	"github.com/pocketbase/pocketbase/core"
	pbmigrations "github.com/pocketbase/pocketbase/migrations"
	"github.com/pocketbase/pocketbase/tools/types"
)

func init() {
	pbmigrations.Register(func(txApp core.App) error {
		name := text("name", 200, "What signed in, such as Chrome on macOS.")
		name.Presentable = true
		collection := text("collectionRef", 64, "The id of the collection that the account is in.")
		collection.Required = true
		record := text("recordRef", 64, "The id of the account that is signed in.")
		record.Required = true

		c := newCollection("gw_sessions", "sessions")
		c.System = true
		owner := `@request.auth.id != "" && recordRef = @request.auth.id && collectionRef = @request.auth.collectionId`
		c.ListRule = types.Pointer(owner)
		c.ViewRule = types.Pointer(owner)
		c.DeleteRule = types.Pointer(owner)
		addFields(c,
			collection,
			record,
			requiredOneOf("kind", "How it began: a sign-in, a superuser acting as this person, the link for the first superuser, or legacy for all tokens that have no session of their own.",
				"sign_in", "impersonation", "setup", "legacy"),
			name,
			text("ip", 64, "The address it was signed in from."),
			text("userAgent", 500, "What the browser or app said about itself when it signed in."),
			date("lastSeenAt", "When it was last used, to the minute."),
			date("expiresAt", "When it ends by itself."),
		)
		c.AddIndex("idx_gw_sessions_account", false, "`recordRef`, `collectionRef`, `lastSeenAt`", "")
		c.AddIndex("idx_gw_sessions_expires", false, "`expiresAt`", "")
		if err := txApp.Save(c); err != nil {
			return fmt.Errorf("create sessions: %w", err)
		}

		// Plain tables. In the first, session is the id of a row that is gone, or * for
		// "whatever you know of any session, read it again"; endedAt is Unix
		// milliseconds. seq is never used twice: a reader knows by it how far it is. The
		// second lists the accounts whose tokens need a session; one row with two empty
		// texts means all accounts.
		for _, sql := range []string{
			`CREATE TABLE {{groundwork_sessions_ended}} (
				[[seq]]     INTEGER PRIMARY KEY AUTOINCREMENT,
				[[session]] TEXT NOT NULL,
				[[endedAt]] INTEGER NOT NULL
			)`,
			`CREATE TABLE {{groundwork_sessions_required}} (
				[[collectionRef]] TEXT NOT NULL,
				[[recordRef]]     TEXT NOT NULL,
				PRIMARY KEY ([[recordRef]], [[collectionRef]])
			)`,
			// Never empty, so that a reader's place in it is always there still.
			`INSERT INTO {{groundwork_sessions_ended}} ([[session]], [[endedAt]]) VALUES ('', 0)`,
		} {
			if _, err := txApp.DB().NewQuery(sql).Execute(); err != nil {
				return fmt.Errorf("create the tables of sessions: %w", err)
			}
		}
		return nil
	}, func(txApp core.App) error {
		for _, table := range []string{"groundwork_sessions_ended", "groundwork_sessions_required"} {
			if _, err := txApp.DB().NewQuery("DROP TABLE IF EXISTS {{" + table + "}}").Execute(); err != nil {
				return fmt.Errorf("drop %s: %w", table, err)
			}
		}
		return deleteCollections(txApp, "gw_sessions")
	})
}
