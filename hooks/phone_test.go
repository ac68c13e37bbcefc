package hooks_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/internal/pbtest"
)

// Numbers from the range that is kept for films.
const (
	phoneA = "+447700900101"
	phoneB = "+447700900202"
	phoneC = "+447700900303"
)

// phones is an app whose users sign in by phone.
type phones struct {
	*pbtest.App
	t     *testing.T
	admin string
}

func newPhones(t *testing.T, opts ...pbtest.Option) *phones {
	t.Helper()
	p := &phones{App: pbtest.NewApp(t, opts...), t: t}
	p.otp("users", func(c *core.Collection) {})
	p.Handler() // starts the jobs
	return p
}

// otp switches codes on for a collection.
func (p *phones) otp(name string, change func(*core.Collection)) {
	p.t.Helper()
	c, err := p.FindCollectionByNameOrId(name)
	require.NoError(p.t, err)
	c.OTP.Enabled = true
	change(c)
	require.NoError(p.t, p.Save(c))
}

// request asks for a sign-in code and returns the otpId.
func (p *phones) request(phone string) string {
	p.t.Helper()
	res := p.Send("POST", "/api/collections/users/request-phone-otp", map[string]any{"phone": phone}, "")
	require.Equal(p.t, 200, res.Status, res.String())
	return res.JSON(p.t)["otpId"].(string)
}

// last waits for the newest delivery to have ended and returns it as a superuser
// sees it.
func (p *phones) last() map[string]any {
	p.t.Helper()
	if p.admin == "" {
		p.admin = p.Token(p.Superuser("root@example.com"))
	}
	var item map[string]any
	require.Eventually(p.t, func() bool {
		res := p.Send("GET", "/api/collections/notification_deliveries/records?perPage=1&sort=-@rowid&filter=channel='sms'", nil, p.admin)
		require.Equal(p.t, 200, res.Status, res.String())
		items := res.JSON(p.t)["items"].([]any)
		if len(items) == 0 {
			return false
		}
		item = items[0].(map[string]any)
		return item["status"] != "pending" && item["status"] != "sending"
	}, 30*time.Second, 10*time.Millisecond)
	return item
}

var digits = regexp.MustCompile(`\d{4,}`)

// code returns the code of the newest captured SMS.
func (p *phones) code() string {
	p.t.Helper()
	d := p.last()
	require.Equal(p.t, "captured", d["status"], d)
	return digits.FindString(d["rendered"].(map[string]any)["body"].(string))
}

func (p *phones) signIn(otpID, code string) pbtest.Response {
	p.t.Helper()
	return p.Send("POST", "/api/collections/users/auth-with-otp", map[string]any{"otpId": otpID, "password": code}, "")
}

func TestPhoneSignIn(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	me := app.User("me@example.com", map[string]any{"phone": phoneA})

	otpID := app.request(phoneA)
	code := app.code()
	res := app.signIn(otpID, code)
	require.Equal(t, 200, res.Status, res.String())
	body := res.JSON(t)
	require.Equal(t, me.Id, body["record"].(map[string]any)["id"])
	require.NotEmpty(t, body["token"])
	require.True(t, app.Reload(me).GetBool("phoneVerified"))

	res = app.signIn(otpID, code)
	require.Equal(t, 400, res.Status, "a code is used once")
}
