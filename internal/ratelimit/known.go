package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
)

const (
	// knownPerAccount is how many addresses of an account keep an allowance of their
	// own; the one unused for the longest time makes room.
	knownPerAccount = 20
	// knownFor is how long an address stays known after the last sign-in from it.
	knownFor = 180 * 24 * time.Hour
)

// errNoLedger means that the tables cannot be used yet.
var errNoLedger = errors.New("the tables of the rate limits are not open")

// Account is the key of an account: of a record, or of an address that belongs
// to nobody. The parts say which.
func (l *Limiter) Account(parts ...string) Key {
	return l.Key(append([]string{"account"}, parts...)...)
}

// address is the key of an address at an account: the same address at another
// account has another one, so that the table links no accounts.
func (l *Limiter) address(account Key, network string) Key {
	return l.Key("address", string(account[:]), network)
}

// Remember makes an address one that the account was signed in from.
func (l *Limiter) Remember(ctx context.Context, account Key, network string) error {
	ledger := l.ledger.Load()
	if ledger == nil {
		return errNoLedger
	}
	address := l.address(account, network)
	db := ledger.app.AuxNonconcurrentDB()
	params := dbx.Params{"account": account[:], "address": address[:], "keep": knownPerAccount}
	res, err := db.NewQuery(`INSERT INTO {{groundwork_known_addresses}} ([[account]], [[address]], [[seenAt]]) VALUES ({:account}, {:address}, ` + now + `)
		ON CONFLICT DO UPDATE SET [[seenAt]] = excluded.[[seenAt]] WHERE [[seenAt]] < excluded.[[seenAt]] - 3600000`).
		WithContext(ctx).Bind(params).Execute()
	if err != nil {
		return fmt.Errorf("remember an address: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return nil // seen within the hour
	}
	_, err = db.NewQuery(`DELETE FROM {{groundwork_known_addresses}} WHERE [[account]] = {:account} AND [[address]] NOT IN (
		SELECT [[address]] FROM {{groundwork_known_addresses}} WHERE [[account]] = {:account} ORDER BY [[seenAt]] DESC LIMIT {:keep})`).
		WithContext(ctx).Bind(params).Execute()
	if err != nil {
		return fmt.Errorf("forget an old address: %w", err)
	}
	return nil
}

// Knows says whether the account was signed in from that address before.
func (l *Limiter) Knows(ctx context.Context, account Key, network string) bool {
	ledger := l.ledger.Load()
	if ledger == nil {
		return false
	}
	address := l.address(account, network)
	var n int
	err := ledger.app.AuxConcurrentDB().NewQuery(`SELECT COUNT(*) FROM {{groundwork_known_addresses}} WHERE [[account]] = {:account} AND [[address]] = {:address}`).
		WithContext(ctx).Bind(dbx.Params{"account": account[:], "address": address[:]}).Row(&n)
	return err == nil && n > 0
}

// Forget drops the addresses of an account that is gone. Its counters and codes go
// by themselves, within their windows.
func (l *Limiter) Forget(ctx context.Context, account Key) error {
	ledger := l.ledger.Load()
	if ledger == nil {
		return errNoLedger
	}
	_, err := ledger.app.AuxNonconcurrentDB().NewQuery(`DELETE FROM {{groundwork_known_addresses}} WHERE [[account]] = {:account}`).
		WithContext(ctx).Bind(dbx.Params{"account": account[:]}).Execute()
	if err != nil {
		return fmt.Errorf("forget the addresses of an account: %w", err)
	}
	return nil
}

// RememberCode keeps which account a code that was asked for is about, whether
// there is such an account or not. id is what the answer called it.
func (l *Limiter) RememberCode(ctx context.Context, id string, account Key, life time.Duration) error {
	ledger := l.ledger.Load()
	if ledger == nil {
		return errNoLedger
	}
	code := l.Key("code", id)
	// The first one stays: PocketBase gives the last code of an account out again.
	_, err := ledger.app.AuxNonconcurrentDB().NewQuery(`INSERT INTO {{groundwork_limit_codes}} ([[code]], [[account]], [[until]])
		VALUES ({:code}, {:account}, ` + now + ` + {:life}) ON CONFLICT DO UPDATE SET [[until]] = excluded.[[until]]`).
		WithContext(ctx).Bind(dbx.Params{"code": code[:], "account": account[:], "life": life.Milliseconds()}).Execute()
	if err != nil {
		return fmt.Errorf("remember a code: %w", err)
	}
	return nil
}

// AccountOfCode returns what [Limiter.RememberCode] kept.
func (l *Limiter) AccountOfCode(ctx context.Context, id string) (account Key, ok bool) {
	ledger := l.ledger.Load()
	if ledger == nil {
		return Key{}, false
	}
	code := l.Key("code", id)
	var found []byte
	err := ledger.app.AuxConcurrentDB().NewQuery(`SELECT [[account]] FROM {{groundwork_limit_codes}} WHERE [[code]] = {:code}`).
		WithContext(ctx).Bind(dbx.Params{"code": code[:]}).Row(&found)
	if err != nil || len(found) != len(account) {
		return Key{}, false
	}
	return Key(found), true
}
