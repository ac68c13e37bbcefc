package accounts_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/internal/seal"
)

func newCodes(t *testing.T, key string) accounts.Codes {
	t.Helper()
	box, err := seal.New([]byte(key))
	require.NoError(t, err)
	return accounts.Codes{Key: box}
}

const (
	key      = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
	otherKey = "llllllllllllllllllllllllllllllll"
)

func TestACodeIsGoodForOneThing(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	codes := newCodes(t, key)
	made := accounts.Code{ID: "abcdefghijklmno", Purpose: accounts.PurposeSignIn, Collection: "users", Record: "me", Phone: "+447700900101",
		TokenKey: "t1", Digits: "123456", ExpiresAt: time.Now().Add(time.Hour)}
	require.NoError(t, codes.Make(app, made))

	_, err := codes.Try(app, made.ID, accounts.PurposeVerifyPhone, "users")
	require.ErrorIs(t, err, accounts.ErrNoCode)
	_, err = codes.Try(app, made.ID, accounts.PurposeSignIn, "staff")
	require.ErrorIs(t, err, accounts.ErrNoCode)
	_, err = newCodes(t, otherKey).Try(app, made.ID, accounts.PurposeSignIn, "users")
	require.ErrorIs(t, err, accounts.ErrNoCode, "the number cannot be opened")

	// Two who got as far as comparing: one of them may use it.
	first, err := codes.Try(app, made.ID, accounts.PurposeSignIn, "users")
	require.NoError(t, err)
	second, err := codes.Try(app, made.ID, accounts.PurposeSignIn, "users")
	require.NoError(t, err)
	for _, tc := range []struct {
		digits, tokenKey string
		want             bool
	}{{"123456", "t1", true}, {"123457", "t1", false}, {"123456", "t2", false}, {"123456", "", false}, {"", "t1", false}, {"1234567", "t1", false}} {
		ok, err := second.Matches(tc.digits, tc.tokenKey)
		require.NoError(t, err)
		require.Equal(t, tc.want, ok, tc)
	}
	require.Equal(t, made.Phone, first.Phone)
	require.NoError(t, first.Use(app))
	require.ErrorIs(t, second.Use(app), accounts.ErrNoCode)

	// One that nobody got matches nothing, not even nothing.
	made.Digits = ""
	require.NoError(t, codes.Make(app, made))
	dead, err := codes.Try(app, made.ID, accounts.PurposeSignIn, "users")
	require.NoError(t, err)
	ok, err := dead.Matches("", "t1")
	require.NoError(t, err)
	require.False(t, ok)

	// What is stored can be read by nobody without the key, nor tried out.
	var row struct {
		All string `db:"everything"`
	}
	require.NoError(t, app.DB().NewQuery("SELECT hex(phone) || ' ' || hex(digest) AS everything FROM groundwork_phone_codes").One(&row))
	require.NotContains(t, row.All, "343437373030393030313031", "the number")
}
