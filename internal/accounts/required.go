package accounts

import (
	"fmt"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Require makes an account's tokens without a session worthless, in the
// transaction that it is given. The ids of the account are empty for all accounts.
// The log has to say so: see [LogEnded].
func Require(txApp core.App, collection, record string) error {
	_, err := txApp.DB().NewQuery("INSERT OR IGNORE INTO {{groundwork_sessions_required}} ([[collectionRef]], [[recordRef]]) VALUES ({:collection}, {:record})").
		Bind(dbx.Params{"collection": collection, "record": record}).Execute()
	if err != nil {
		return fmt.Errorf("require a session of account %s: %w", record, err)
	}
	return nil
}

// Unrequire takes [Require] back.
func Unrequire(txApp core.App, collection, record string) error {
	_, err := txApp.DB().Delete("groundwork_sessions_required", dbx.HashExp{"collectionRef": collection, "recordRef": record}).Execute()
	if err != nil {
		return fmt.Errorf("no longer require a session of account %s: %w", record, err)
	}
	return nil
}
