package hooks_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever asks for codes for invented numbers uses up the caps of strangers, not
// those of people who have an account.
func TestStrangersCannotUseUpTheCodesOfOwners(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.person("home@example.com", phoneA, true)
	app.person("away@example.com", phoneB, true)
	require.Equal(t, http.StatusOK, app.signIn(app.request(phoneA), app.code()).Status) // from then on its address is known
	app.sql("DELETE FROM groundwork_phone_texts")
	require.Equal(t, http.StatusOK, app.settings("users", map[string]any{"phoneSignUp": true, "maxPerHour": 10}).Status)

	send := func(phone string) string {
		app.request(phone)
		return app.last()["reason"].(string)
	}
	const sent, capped = "captured", "code_cap_reached"
	for i := range 8 {
		require.Equal(t, sent, send(fmt.Sprintf("+44770081%04d", i)))
	}
	require.Equal(t, capped, send("+447700820001"))
	app.verify(app.person("more@example.com", "", false), "+447700820002")
	require.Equal(t, capped, app.last()["reason"], "a number that is to be verified is a stranger's too")

	require.Equal(t, sent, send(phoneB), "an owner")
	require.Equal(t, capped, send(phoneB))
	require.Equal(t, sent, send(phoneA), "an owner at home")
	require.Equal(t, capped, send(phoneA), "the cap is the cap")
}

// What is not sent is listed so that an operator can see why, not without end.
func TestCodesForNobodyDoNotFillTheDisk(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.person("me@example.com", phoneA, true)
	require.Equal(t, http.StatusOK, app.settings("users", map[string]any{"maxPerHour": 5}).Status)
	for i := range 12 {
		refused(t, app.signIn(app.request(fmt.Sprintf("+44770081%04d", i)), "000000"))
	}
	require.Equal(t, 5, app.count("notification_deliveries", "channel = 'sms'"))
	require.Equal(t, 5, app.count("groundwork_phone_texts", "1 = 1"))
	require.Equal(t, http.StatusOK, app.signIn(app.request(phoneA), app.code()).Status, "codes go on")

	app.sql("UPDATE groundwork_phone_texts SET at = at - 3600000")
	app.request("+447700820001")
	require.Equal(t, "no_account", app.last()["reason"])
}
