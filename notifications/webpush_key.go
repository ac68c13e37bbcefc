package notifications

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// purposeVAPID binds the sealed key of Web Push to what it is for. Its row has no
// end: every browser that subscribed did so for this key.
const purposeVAPID = "webpush-vapid"

// WebPushKey returns the private key by which this installation sends Web Push,
// made by newKey and sealed the first time. Processes that start together agree on
// one.
//
// The key is empty when it was sealed with another GROUNDWORK_KEY. Another one is
// never made in its place: no browser would get a message any more.
func WebPushKey(app core.App, box SecretBox, newKey func() (string, error)) (string, error) {
	key, err := readWebPushKey(app, box)
	if !errors.Is(err, sql.ErrNoRows) {
		return key, err
	}
	if key, err = newKey(); err != nil {
		return "", err
	}
	sealed, err := box.Seal(purposeVAPID, []byte(key))
	if err != nil {
		return "", fmt.Errorf("seal Web Push key: %w", err)
	}
	if _, err := app.NonconcurrentDB().NewQuery("INSERT INTO {{groundwork_sealed}} ([[id]], [[purpose]], [[box]]) VALUES ({:purpose}, {:purpose}, {:box})" +
		" ON CONFLICT DO NOTHING").Bind(dbx.Params{"purpose": purposeVAPID, "box": sealed}).Execute(); err != nil {
		return "", fmt.Errorf("store Web Push key: %w", err)
	}
	return readWebPushKey(app, box)
}

func readWebPushKey(app core.App, box SecretBox) (string, error) {
	var sealed []byte
	err := app.NonconcurrentDB().Select("box").From("groundwork_sealed").Where(dbx.HashExp{"id": purposeVAPID}).Row(&sealed)
	if err != nil {
		return "", fmt.Errorf("read Web Push key: %w", err)
	}
	plain, err := box.Open(purposeVAPID, sealed)
	if err != nil {
		return "", nil // the provider says so
	}
	return string(plain), nil
}

// Config returns the settings of the provider that serves a route now, paused or
// not, or [ErrNoProvider].
func (p *Providers) Config(app core.App, route Route) (ProviderConfig, error) {
	rows, err := p.rows(app)
	if err != nil {
		return ProviderConfig{}, err
	}
	row := choose(rows, route)
	if row == nil {
		return ProviderConfig{}, ErrNoProvider
	}
	return p.config(app, row)
}
