package accounts

import (
	"database/sql"
	"errors"
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

// Required reports whether no token without a session counts any more.
func Required(app core.App) (bool, error) {
	var one int
	err := app.DB().Select("(1)").From("groundwork_sessions_required").Where(dbx.HashExp{"collectionRef": "", "recordRef": ""}).Limit(1).Row(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find out whether sessions are required: %w", err)
	}
	return true, nil
}

// RequireAll decides for all accounts whether tokens need a session, in this and
// in every running process. It returns for how many accounts such tokens were in
// use that no longer count.
func (s *Sessions) RequireAll(required bool) (inUse int64, err error) {
	err = s.app.RunInTransaction(func(txApp core.App) error {
		if !required {
			if err := Unrequire(txApp, "", ""); err != nil {
				return err
			}
			return LogEndedAll(txApp)
		}
		if err := Require(txApp, "", ""); err != nil {
			return err
		}
		collection, err := txApp.FindCollectionByNameOrId(CollectionSessions)
		if err != nil {
			return fmt.Errorf("find collection of sessions: %w", err)
		}
		result, err := txApp.DB().Delete(collection.Name, dbx.HashExp{"kind": string(KindLegacy)}).Execute()
		if err != nil {
			return fmt.Errorf("delete legacy sessions: %w", err)
		}
		inUse, err = result.RowsAffected()
		if err != nil {
			return fmt.Errorf("count legacy sessions: %w", err)
		}
		return LogEndedAll(txApp)
	})
	if err != nil {
		return 0, err
	}
	return inUse, s.Changed()
}
