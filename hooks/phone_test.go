package hooks_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
	"github.com/groundworkhq/groundwork/notifications/providertest"
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
	p := &phones{App: pbtest.NewApp(t, append(opts, pbtest.WithConfig(hooks.AnswerAtOnce))...), t: t}
	p.otp("users", func(c *core.Collection) {})
	if p.HasTable("rate_limits") {
		p.sql("UPDATE rate_limits SET enabled = FALSE") // they would answer before what is tested here
	}
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
	}, patience, 10*time.Millisecond)
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

const wrongOTP = "Invalid or expired OTP"

// refused checks that an answer is the one to a wrong code.
func refused(t *testing.T, res pbtest.Response) {
	t.Helper()
	require.Equal(t, 400, res.Status, res.String())
	require.Equal(t, wrongOTP+".", res.JSON(t)["message"])
}

// person makes somebody with a number; verified as if by a code.
func (p *phones) person(email, phone string, verified bool) *core.Record {
	p.t.Helper()
	r := p.User(email, map[string]any{"phone": phone})
	if verified {
		r.Set("phoneVerified", true)
		require.NoError(p.t, p.SaveWithContext(notifications.AsServer(context.Background()), r))
	}
	return r
}

// settings changes the row of a collection as a superuser does.
func (p *phones) settings(collection string, fields map[string]any) pbtest.Response {
	p.t.Helper()
	row, err := p.FindFirstRecordByData(accounts.CollectionPhoneSignIn, "collection", collection)
	require.NoError(p.t, err)
	return p.Send("PATCH", "/api/collections/phone_sign_in/records/"+row.Id, fields, p.root())
}

func (p *phones) root() string {
	p.t.Helper()
	if p.admin == "" {
		p.admin = p.Token(p.Superuser("root@example.com"))
	}
	return p.admin
}

func (p *phones) ask(path string, body map[string]any, token string) pbtest.Response {
	p.t.Helper()
	return p.Send("POST", "/api/collections/users/"+path, body, token)
}

// verify asks for a code by which a person verifies a number.
func (p *phones) verify(r *core.Record, phone string) string {
	p.t.Helper()
	res := p.ask("request-phone-verification", map[string]any{"phone": phone}, p.Token(p.Reload(r)))
	require.Equal(p.t, 200, res.Status, res.String())
	return res.JSON(p.t)["otpId"].(string)
}

func (p *phones) confirm(r *core.Record, otpID, code string) pbtest.Response {
	p.t.Helper()
	return p.ask("confirm-phone-verification", map[string]any{"otpId": otpID, "code": code}, p.Token(p.Reload(r)))
}

func (p *phones) sql(query string, params ...dbx.Params) {
	p.t.Helper()
	q := p.NonconcurrentDB().NewQuery(query)
	for _, params := range params {
		q.Bind(params)
	}
	_, err := q.Execute()
	require.NoError(p.t, err)
}

func (p *phones) count(table, where string) int {
	p.t.Helper()
	var n int
	require.NoError(p.t, p.ConcurrentDB().Select("count(*)").From(table).Where(dbx.NewExp(where)).Row(&n))
	return n
}

// nothingSealed waits until the content of all that was sent is erased. That comes
// after the delivery has its status.
func (p *phones) nothingSealed() {
	p.t.Helper()
	require.True(p.t, waitFor(func() bool { return p.count("groundwork_sealed", "purpose = 'mail'") == 0 }), "erased when sent")
}

func TestPhoneSignIn(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	me := app.person("me@example.com", phoneA, false)
	before := app.Token(me)

	// The first right code on a number that nobody has proved yet.
	otpID := app.request("+44 7700 900-101")
	code := app.code()
	res := app.signIn(otpID, code)
	require.Equal(t, 200, res.Status, res.String())
	record := res.JSON(t)["record"].(map[string]any)
	require.Equal(t, me.Id, record["id"])
	require.Equal(t, true, record["phoneVerified"])
	require.Equal(t, phoneA, record["phone"])
	first := res.JSON(t)["token"].(string)
	now := app.Reload(me)
	require.True(t, now.GetBool("phoneVerified"))
	require.False(t, now.ValidatePassword(pbtest.Password), "whoever knew the password does not get in by it")
	_, err := app.FindAuthRecordByToken(before, core.TokenTypeAuth)
	require.Error(t, err, "earlier sign-ins have ended")
	_, err = app.FindAuthRecordByToken(first, core.TokenTypeAuth)
	require.NoError(t, err)
	require.Equal(t, 1, app.count("notification_deliveries", "channel = 'email' AND user = '"+me.Id+"'"), "the address is told")

	refused(t, app.signIn(otpID, code)) // used

	// The next one changes nothing.
	res = app.signIn(app.request(phoneA), app.code())
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, now.TokenKey(), app.Reload(me).TokenKey())
	_, err = app.FindAuthRecordByToken(first, core.TokenTypeAuth)
	require.NoError(t, err, "other sign-ins go on")
	require.Zero(t, app.count("groundwork_phone_codes", "1=1"), "used codes are gone")
	app.nothingSealed()
}

// What a stranger sees of a number is the same whatever is behind it, for as long
// as they look.
func TestANumberTellsNothing(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.person("verified@example.com", "+447700900001", true)
	app.person("unverified@example.com", "+447700900002", false)
	app.person("twin1@example.com", "+447700900003", false)
	app.person("twin2@example.com", "+447700900003", false)
	app.person("test@example.com", "+447700900004", true)
	res := app.settings("users", map[string]any{"testNumbers": []any{map[string]any{"phone": "+447700900004", "code": "123456"}, map[string]any{"phone": "+447700900005", "code": "123456"}}})
	require.Equal(t, 200, res.Status, res.String())
	capped := "+447700800006"
	app.person("capped@example.com", capped, true)
	app.request("+447700800099") // nobody's: it does not count
	for range accounts.DefaultMaxPerPrefixPerHour {
		app.request(capped)
	}
	app.last()

	kinds := map[string]struct{ phone, status, reason string }{
		"verified":            {"+447700900001", "captured", "captured"},
		"unverified":          {"+447700900002", "captured", "captured"},
		"of two":              {"+447700900003", "skipped", "phone_ambiguous"},
		"test":                {"+447700900004", "skipped", "test_number"},
		"test without anyone": {"+447700900005", "skipped", "no_account"},
		"unknown":             {"+447700900099", "skipped", "no_account"},
		"capped":              {capped, "skipped", "code_cap_reached"},
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			res := app.ask("request-phone-otp", map[string]any{"phone": kind.phone}, "")
			require.Equal(t, 200, res.Status)
			require.Regexp(t, `^\{"otpId":"[a-z0-9]{15}"\}\s*$`, string(res.Body))
			otpID := res.JSON(t)["otpId"].(string)
			d := app.last()
			require.Equal(t, kind.status+" "+kind.reason, fmt.Sprint(d["status"], " ", d["reason"]), d)

			// The same rows for everybody.
			require.Equal(t, 1, app.count("groundwork_phone_codes", "id = '"+otpID+"'"))
			for i := 1; i <= accounts.MaxTries+2; i++ {
				refused(t, app.signIn(otpID, "0000"))
				require.Equal(t, min(i, accounts.MaxTries), app.tries(otpID))
			}

			// A code that has run out, and an id that never was.
			other := app.request(kind.phone)
			app.sql("UPDATE groundwork_phone_codes SET expiresAt = 1 WHERE id = {:id}", dbx.Params{"id": other})
			refused(t, app.signIn(other, "0000"))
		})
	}
	refused(t, app.signIn("abcdefghijklmno", "0000"))
}

func (p *phones) tries(otpID string) int {
	p.t.Helper()
	var n int
	require.NoError(p.t, p.ConcurrentDB().Select("tries").From("groundwork_phone_codes").Where(dbx.HashExp{"id": otpID}).Row(&n))
	return n
}

func TestAPhoneCodeDiesAtTheFifthWrongTry(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.person("me@example.com", phoneA, true)

	// Right at the fifth.
	otpID := app.request(phoneA)
	code := app.code()
	for range accounts.MaxTries - 1 {
		refused(t, app.signIn(otpID, "000000"))
	}
	require.Equal(t, 200, app.signIn(otpID, code).Status)

	// Many at once: no more than five are compared, and the right one is too late.
	otpID = app.request(phoneA)
	code = app.code()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { app.signIn(otpID, "000000") })
	}
	all.Wait()
	require.Equal(t, accounts.MaxTries, app.tries(otpID))
	refused(t, app.signIn(otpID, code))

	// A newer code is another one: the old one stays dead.
	newer := app.request(phoneA)
	right := app.code()
	refused(t, app.signIn(otpID, right))
	require.Equal(t, 200, app.signIn(newer, right).Status)

	// The right one many times at once signs in once.
	otpID = app.request(phoneA)
	code = app.code()
	var mu sync.Mutex
	in := 0
	for range 5 {
		all.Go(func() {
			if app.signIn(otpID, code).Status == 200 {
				mu.Lock()
				defer mu.Unlock()
				in++
			}
		})
	}
	all.Wait()
	require.Equal(t, 1, in)
}

// Each row is a way into, or to, something that is somebody else's.
func TestPhoneTakeovers(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.otp("users", func(c *core.Collection) { c.OTP.Length = 6 })
	server := notifications.AsServer(context.Background())

	type people struct{ victim, attacker *core.Record }
	fresh := func(t *testing.T, n int) (people, string) {
		phone := fmt.Sprintf("+4477009008%02d", n)
		return people{app.person(fmt.Sprintf("v%d@example.com", n), phone, true), app.person(fmt.Sprintf("a%d@example.com", n), "", false)}, phone
	}
	staff := core.NewAuthCollection("staff")
	staff.OTP.Enabled = true
	staff.Fields.Add(&core.TextField{Name: "phone"})
	require.NoError(t, app.Save(staff))
	for i, tc := range []struct {
		name string
		try  func(t *testing.T, p people, phone string)
	}{
		{"an attacker's account has the victim's number, unverified", func(t *testing.T, p people, phone string) {
			p.attacker.Set("phone", phone)
			require.NoError(t, app.Save(p.attacker))
			res := app.signIn(app.request(phone), app.code())
			require.Equal(t, p.victim.Id, res.JSON(t)["record"].(map[string]any)["id"])
		}},
		{"and the victim has not verified it either", func(t *testing.T, p people, phone string) {
			p.attacker.Set("phone", phone)
			require.NoError(t, app.Save(p.attacker))
			p.victim.Set("phoneVerified", false)
			require.NoError(t, app.SaveWithContext(server, p.victim))
			refused(t, app.signIn(app.request(phone), "000000"))
			require.Equal(t, "phone_ambiguous", app.last()["reason"])
		}},
		{"a second claim after the request", func(t *testing.T, p people, phone string) {
			p.victim.Set("phoneVerified", false)
			require.NoError(t, app.SaveWithContext(server, p.victim))
			otpID := app.request(phone)
			code := app.code()
			p.attacker.Set("phone", phone)
			require.NoError(t, app.Save(p.attacker))
			refused(t, app.signIn(otpID, code))
		}},
		{"the number changed hands after the request", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			code := app.code()
			p.victim.Set("phone", "")
			require.NoError(t, app.SaveWithContext(server, p.victim))
			p.attacker.Set("phone", phone)
			p.attacker.Set("phoneVerified", true)
			require.NoError(t, app.SaveWithContext(server, p.attacker))
			refused(t, app.signIn(otpID, code))
		}},
		{"a sign-in code verifies nothing", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			refused(t, app.confirm(p.victim, otpID, app.code()))
			refused(t, app.confirm(p.attacker, otpID, app.code()))
			require.Zero(t, app.tries(otpID), "it is not even tried")
		}},
		{"a code to verify signs nobody in", func(t *testing.T, p people, phone string) {
			otpID := app.verify(p.victim, phone)
			refused(t, app.signIn(otpID, app.code()))
		}},
		{"a code to verify is its account's only", func(t *testing.T, p people, phone string) {
			otpID := app.verify(p.victim, "+447700900777")
			code := app.code()
			refused(t, app.confirm(p.attacker, otpID, code))
			require.Equal(t, 200, app.confirm(p.victim, otpID, code).Status)
			refused(t, app.confirm(p.victim, otpID, code)) // used
			require.NoError(t, app.Delete(app.Reload(p.victim)))
		}},
		{"somebody else's verified number cannot be verified", func(t *testing.T, p people, phone string) {
			otpID := app.verify(p.attacker, phone)
			require.Equal(t, "phone_taken", app.last()["reason"])
			refused(t, app.confirm(p.attacker, otpID, "000000"))
			require.Equal(t, phone, app.Reload(p.victim).GetString("phone"))
			require.Empty(t, app.Reload(p.attacker).GetString("phone"))
		}},
		{"nor when it was verified meanwhile", func(t *testing.T, p people, phone string) {
			const other = "+447700900778"
			mine, theirs := app.verify(p.attacker, other), ""
			code := app.code()
			theirs = app.verify(p.victim, other)
			require.Equal(t, 200, app.confirm(p.victim, theirs, app.code()).Status)
			refused(t, app.confirm(p.attacker, mine, code))
			require.NoError(t, app.Delete(app.Reload(p.victim)))
		}},
		{"a code of a changed number", func(t *testing.T, p people, phone string) {
			old := app.request(phone)
			code := app.code()
			otpID := app.verify(p.victim, "+447700900779")
			require.Equal(t, 200, app.confirm(p.victim, otpID, app.code()).Status)
			refused(t, app.signIn(old, code))
		}},
		{"a code from before all sign-ins were ended", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			code := app.code()
			now := app.Reload(p.victim)
			now.SetPassword("another-password")
			require.NoError(t, app.Save(now))
			refused(t, app.signIn(otpID, code))
		}},
		{"another collection's route", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			res := app.Send("POST", "/api/collections/staff/auth-with-otp", map[string]any{"otpId": otpID, "password": app.code()}, "")
			refused(t, res)
		}},
		{"an expired code", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			code := app.code()
			app.sql("UPDATE groundwork_phone_codes SET expiresAt = 1 WHERE id = {:id}", dbx.Params{"id": otpID})
			refused(t, app.signIn(otpID, code))
		}},
		{"a code stored under another key, or altered", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			code := app.code()
			app.sql("UPDATE groundwork_phone_codes SET record = {:to} WHERE id = {:id}", dbx.Params{"id": otpID, "to": p.attacker.Id})
			refused(t, app.signIn(otpID, code))
			app.sql("UPDATE groundwork_phone_codes SET phone = 'x' WHERE id = {:id}", dbx.Params{"id": otpID})
			refused(t, app.signIn(otpID, code))
		}},
		{"nonsense", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			app.last()
			for _, body := range []map[string]any{
				{"otpId": otpID}, {"password": "1"}, {"otpId": otpID, "password": strings.Repeat("9", 500)}, {"otpId": []string{otpID}, "password": "1"},
				{"otpId": otpID + "' OR 1=1 --", "password": "1"}, {"otpId": otpID, "password": map[string]any{"a": 1}},
			} {
				require.Equal(t, 400, app.ask("auth-with-otp", body, "").Status, body)
			}
			require.Equal(t, 400, app.Send("POST", "/api/collections/users/auth-with-otp", "{", "").Status)
			require.Equal(t, 400, app.ask("confirm-phone-verification", map[string]any{"otpId": otpID}, app.Token(p.victim)).Status)
		}},
		{"a person who is deleted", func(t *testing.T, p people, phone string) {
			otpID := app.request(phone)
			code := app.code()
			require.NoError(t, app.Delete(app.Reload(p.victim)))
			require.Zero(t, app.count("groundwork_phone_codes", "id = '"+otpID+"'"))
			refused(t, app.signIn(otpID, code))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, phone := fresh(t, i)
			tc.try(t, p, phone)
			if tc.name == "the number changed hands after the request" {
				return
			}
			attacker := app.Reload(p.attacker)
			require.False(t, attacker.GetBool("phoneVerified"), "the attacker has a number")
			require.Equal(t, p.attacker.TokenKey(), attacker.TokenKey())
		})
	}
}

func TestPhoneVerification(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	me, other := app.person("me@example.com", "", false), app.person("other@example.com", "", false)

	for _, route := range []string{"request-phone-verification", "confirm-phone-verification"} {
		body := map[string]any{"phone": phoneA, "otpId": "abcdefghijklmno", "code": "1"}
		require.Equal(t, 401, app.ask(route, body, "").Status, "guest")
		require.Equal(t, 403, app.ask(route, body, app.root()).Status, "superusers change the record itself")
	}
	res := app.ask("request-phone-verification", nil, app.Token(me))
	require.Equal(t, 400, res.Status)
	require.Contains(t, res.String(), "The phone number is missing")

	// The first number, then another one.
	res = app.confirm(me, app.verify(me, "+44 7700 900101"), app.code())
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, []any{phoneA, true}, []any{res.JSON(t)["phone"], res.JSON(t)["phoneVerified"]})
	require.Zero(t, app.count("notification_deliveries", "channel = 'email'"))
	session := app.Token(app.Reload(me))
	otpID := app.verify(me, phoneB)
	require.Contains(t, app.last()["rendered"].(map[string]any)["body"], "to confirm this number")
	refused(t, app.confirm(me, otpID, "000000"))
	refused(t, app.confirm(other, otpID, app.code()))
	require.Equal(t, phoneA, app.Reload(me).GetString("phone"), "nothing changes before the code")
	require.Equal(t, 200, app.confirm(me, otpID, app.code()).Status)
	require.Equal(t, phoneB, app.Reload(me).GetString("phone"))
	_, err := app.FindAuthRecordByToken(session, core.TokenTypeAuth)
	require.NoError(t, err, "a new number ends no session")
	require.Equal(t, 1, app.count("notification_deliveries", "channel = 'email' AND user = '"+me.Id+"'"), "the address is told")
	require.True(t, app.Reload(me).ValidatePassword(pbtest.Password))

	// The old number leads nowhere, and may be somebody else's.
	app.request(phoneA)
	require.Equal(t, "no_account", app.last()["reason"])
	require.Equal(t, 200, app.confirm(other, app.verify(other, phoneA), app.code()).Status)
	require.Equal(t, phoneA, app.Reload(other).GetString("phone"))

	// A superuser's change has to be proved again, by the own number.
	require.Equal(t, 200, app.Send("PATCH", "/api/collections/users/records/"+me.Id, map[string]any{"phone": phoneC}, app.root()).Status)
	require.False(t, app.Reload(me).GetBool("phoneVerified"))
	require.Equal(t, 200, app.confirm(me, app.verify(me, ""), app.code()).Status)
	require.True(t, app.Reload(me).GetBool("phoneVerified"))
}

func TestPhoneSignUp(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := newPhones(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))

	refused(t, app.signIn(app.request(phoneA), "00000000"))
	require.Equal(t, "no_account", app.last()["reason"], "off from the start")

	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	require.True(t, users.Fields.GetByName("email").(*core.EmailField).Required)
	users.Fields.Add(&core.TextField{Name: "nickname", Required: true})
	require.NoError(t, app.Save(users))
	res := app.settings("users", map[string]any{"phoneSignUp": true})
	require.Equal(t, 400, res.Status)
	require.Contains(t, res.String(), "nickname")
	users.Fields.RemoveByName("nickname")
	require.NoError(t, app.Save(users))
	res = app.settings("users", map[string]any{"phoneSignUp": true})
	require.Equal(t, 200, res.Status, res.String())
	users, err = app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	require.False(t, users.Fields.GetByName("email").(*core.EmailField).Required, "an account of this kind has none")

	// Two codes for one number, used at the same moment: one account.
	first := app.request(phoneA)
	code1 := app.code()
	second := app.request(phoneA)
	code2 := app.code()
	require.Zero(t, app.count("users", "1=1"), "no account before a code")
	var all sync.WaitGroup
	answers := make([]pbtest.Response, 2)
	all.Go(func() { answers[0] = app.signIn(first, code1) })
	all.Go(func() { answers[1] = app.signIn(second, code2) })
	all.Wait()
	for _, res := range answers {
		require.Equal(t, 200, res.Status, res.String())
	}
	require.Equal(t, answers[0].JSON(t)["record"].(map[string]any)["id"], answers[1].JSON(t)["record"].(map[string]any)["id"])
	require.Equal(t, 1, app.count("users", "1=1"))
	me, err := app.FindFirstRecordByData("users", "phone", phoneA)
	require.NoError(t, err)
	require.True(t, me.GetBool("phoneVerified"))
	require.Empty(t, me.Email())
	require.False(t, me.Verified())
	require.Equal(t, 200, app.Send("PATCH", "/api/collections/users/records/"+me.Id, map[string]any{"name": "Ada"}, app.Token(me)).Status, "it can be edited")

	// The application refuses: the code is as it was.
	hook := app.OnRecordCreate("users").BindFunc(func(e *core.RecordEvent) error { return apis.NewForbiddenError("By invitation only.", nil) })
	otpID := app.request(phoneB)
	code := app.code()
	res = app.signIn(otpID, code)
	require.Equal(t, 403, res.Status, res.String())
	require.Equal(t, 1, app.count("users", "1=1"))
	app.OnRecordCreate("users").Unbind(hook)
	require.Equal(t, 200, app.signIn(otpID, code).Status)
	require.NotContains(t, out.String(), phoneB[1:])

	// Several accounts with an unverified number make no third.
	app.person("twin1@example.com", phoneC, false)
	app.person("twin2@example.com", phoneC, false)
	app.request(phoneC)
	require.Equal(t, "phone_ambiguous", app.last()["reason"])

	// Switched off again, with a code under way.
	otpID = app.request("+447700900404")
	code = app.code()
	require.Equal(t, 200, app.settings("users", map[string]any{"phoneSignUp": false}).Status)
	refused(t, app.signIn(otpID, code))
}

func TestTestNumbers(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	reviewer := app.person("reviewer@example.com", "", false)
	require.Equal(t, 200, app.settings("users", map[string]any{"testNumbers": []any{map[string]any{"phone": "+1 555 0100 100", "code": "246810"}}}).Status)
	const phone = "+15550100100"

	otpID := app.request(phone)
	require.Equal(t, "no_account", app.last()["reason"], "it makes no account appear")
	refused(t, app.signIn(otpID, "246810"))

	require.Equal(t, 200, app.confirm(reviewer, app.verify(reviewer, phone), "246810").Status)
	for range 2 { // any number of times, each with an otpId of its own
		otpID = app.request(phone)
		refused(t, app.signIn(otpID, "999999"))
		res := app.signIn(otpID, "246810")
		require.Equal(t, 200, res.Status, res.String())
		require.Equal(t, reviewer.Id, res.JSON(t)["record"].(map[string]any)["id"])
		refused(t, app.signIn(otpID, "246810"))
	}
	require.Zero(t, app.count("notification_deliveries", "status NOT IN ('skipped', 'pending')"), "nothing is ever sent")
	require.Zero(t, app.count("groundwork_phone_texts", "counted = 1"))
}

func TestPhoneSettingsRefusals(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	row, err := app.FindFirstRecordByData(accounts.CollectionPhoneSignIn, "collection", "users")
	require.NoError(t, err)
	path := "/api/collections/phone_sign_in/records"
	me := app.Token(app.person("me@example.com", "", false))
	for _, token := range []string{"", me} {
		require.NotEqual(t, 200, app.Send("GET", path, nil, token).Status)
		require.NotEqual(t, 200, app.Send("GET", path+"/"+row.Id, nil, token).Status)
		require.NotEqual(t, 200, app.Send("PATCH", path+"/"+row.Id, map[string]any{"phoneSignUp": true}, token).Status)
		require.NotEqual(t, 200, app.Send("POST", path, map[string]any{"collection": "users"}, token).Status)
		require.NotEqual(t, 204, app.Send("DELETE", path+"/"+row.Id, nil, token).Status)
	}
	many := make([]any, 21)
	for i := range many {
		many[i] = map[string]any{"phone": fmt.Sprintf("+4477009007%02d", i), "code": "123456"}
	}
	for _, tc := range []struct {
		field string
		value any
		says  string
	}{
		{"collection", "nobody", "There is no collection with this name."},
		{"collection", "notifications", "Nobody signs in to notifications"},
		{"collection", "_superusers", "Superusers do not sign in by SMS"},
		{"countries", []string{"DE", "Germany"}, `"GERMANY" is not a country code`},
		{"countries", map[string]any{"DE": true}, "This is a list of country codes"},
		{"testNumbers", "0151 123", "This is a list of numbers and codes"},
		{"testNumbers", []any{map[string]any{"phone": "0151 1234567", "code": "123456"}}, "write it like +4915112345678"},
		{"testNumbers", []any{map[string]any{"phone": phoneA, "code": 123456}}, "in quotation marks"},
		{"testNumbers", []any{map[string]any{"phone": phoneA, "code": "1234"}}, "6 to 12 digits"},
		{"testNumbers", []any{map[string]any{"phone": phoneA, "code": "12345x"}}, "6 to 12 digits"},
		{"testNumbers", []any{map[string]any{"phone": phoneA, "code": "123456"}, map[string]any{"phone": "+44 7700 900101", "code": "123456"}}, "twice"},
		{"testNumbers", many, "These are 21 numbers, and there may be 20."},
		{"maxPerHour", -1, ""},
		{"maxPerPrefixPerHour", 1.5, ""},
	} {
		res := app.settings("users", map[string]any{tc.field: tc.value})
		require.Equal(t, 400, res.Status, "%v: %s", tc.value, res)
		problem := res.JSON(t)["data"].(map[string]any)[tc.field].(map[string]any)
		require.Contains(t, problem["message"], tc.says)
	}
	res := app.settings("users", map[string]any{"countries": []string{"DE"}, "testNumbers": []any{map[string]any{"phone": phoneA, "code": "123456"}}})
	require.Equal(t, 400, res.Status)
	require.Contains(t, res.String(), "is a number of GB, which is not in countries")

	res = app.settings("users", map[string]any{"countries": "de, AT de", "testNumbers": nil})
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, []any{"DE", "AT"}, res.JSON(t)["countries"])
	require.Equal(t, []any{}, res.JSON(t)["testNumbers"])
	require.Equal(t, 400, app.Send("POST", path, map[string]any{"collection": "_pb_users_auth_"}, app.root()).Status, "one row each, whatever it is called by")
	require.Equal(t, 400, app.Send("POST", path, map[string]any{"collection": "users"}, app.root()).Status)

	// The row follows its collection, and a missing one means the defaults.
	users, err := app.FindCollectionByNameOrId("users")
	require.NoError(t, err)
	users.Name = "people"
	require.NoError(t, app.Save(users))
	res = app.Send("POST", "/api/collections/people/request-phone-otp", map[string]any{"phone": phoneA}, "")
	require.Equal(t, 400, res.Status, "its countries are in force")
	require.Equal(t, 204, app.Send("DELETE", path+"/"+row.Id, nil, app.root()).Status)
	require.Equal(t, 200, app.Send("POST", "/api/collections/people/request-phone-otp", map[string]any{"phone": phoneA}, "").Status)
	res = app.Send("POST", path, map[string]any{"collection": "people", "maxPerHour": 5}, app.root())
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, true, res.JSON(t)["enabled"])
	require.Equal(t, 200, app.Send("PATCH", path+"/"+res.JSON(t)["id"].(string), map[string]any{"enabled": false}, app.root()).Status)
	res = app.Send("POST", "/api/collections/people/request-phone-otp", map[string]any{"phone": phoneA}, "")
	require.Equal(t, 400, res.Status)
	require.Contains(t, res.String(), "switched off for people")
}

func TestCapsOnCodes(t *testing.T) {
	t.Parallel()
	out := &lockedBuffer{}
	app := newPhones(t, pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out }))
	for i := range 6 {
		app.person(fmt.Sprintf("p%d@example.com", i), fmt.Sprintf("+44770090010%d", i), true)
	}
	far := app.person("far@example.com", "+447700810001", true)
	require.Equal(t, 200, app.settings("users", map[string]any{"maxPerPrefixPerHour": 3, "maxPerHour": 5}).Status)
	send := func(phone string) string {
		t.Helper()
		app.request(phone)
		d := app.last()
		return d["reason"].(string)
	}
	for i := range 3 {
		require.Equal(t, "captured", send(fmt.Sprintf("+44770090010%d", i)))
	}
	require.Equal(t, "code_cap_reached", send("+447700900104"), "its prefix has had its three")
	d := app.last()
	require.Equal(t, "skipped", d["status"])
	require.Contains(t, d["explanation"], "maxPerPrefixPerHour in phone_sign_in")
	require.Equal(t, "captured", send(far.GetString("phone")), "others go on")
	require.Equal(t, "captured", send(far.GetString("phone")))
	require.Equal(t, "code_cap_reached", send(far.GetString("phone")), "over all")

	// Codes to verify a number count too.
	app.verify(app.person("new@example.com", "", false), "+447700820001")
	require.Equal(t, "code_cap_reached", app.last()["reason"])
	require.Equal(t, 1, strings.Count(out.String(), "codes are not sent any more"), "said once a minute")

	// The window slides: one leaves it, one may be sent.
	app.sql("UPDATE groundwork_phone_texts SET at = at - 3600000 WHERE id = (SELECT min(id) FROM groundwork_phone_texts WHERE counted = 1)")
	require.Equal(t, "captured", send("+447700900105"))
	require.Equal(t, "code_cap_reached", send("+447700900105"))
}

func TestCountriesInProduction(t *testing.T) {
	t.Parallel()
	twilio := providertest.NewTwilio(t, providertest.TwilioOptions{})
	sender := func(id string) pbtest.Option {
		return pbtest.WithConfig(func(c *hooks.Config) {
			c.Providers = []notifications.ProviderConfig{{Channel: notifications.ProviderSMSTransactional, Config: twilio.Config(), Secret: twilio.AuthToken(), SenderID: id}}
		})
	}
	const german, american, jamaican, premium = "+4915112345678", "+12025550123", "+18765550123", "+449012345678"
	for _, tc := range []struct {
		name      string
		sender    string // empty: none
		countries []string
		open      []string
		closed    []string
	}{
		{"nothing set: the sender's country", "+447700900999", nil, []string{phoneA}, []string{german, american, premium}},
		{"a shared country code", "+12025550100", nil, []string{american}, []string{jamaican, phoneA}},
		{"a sender without a country", "SHOP", nil, nil, []string{phoneA, german}},
		{"no sender: nothing can be sent", "", nil, []string{phoneA, german}, nil},
		{"a list", "+447700900999", []string{"DE", "GB"}, []string{german, phoneA}, []string{american, premium}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out := &lockedBuffer{}
			opts := []pbtest.Option{pbtest.WithConfig(production), pbtest.WithConfig(func(c *hooks.Config) { c.LogOutput = out })}
			if tc.sender != "" {
				opts = append(opts, sender(tc.sender))
			}
			app := newPhones(t, opts...)
			require.Equal(t, tc.sender == "SHOP", strings.Contains(out.String(), "nobody can sign in by phone"), "said at the start")
			require.Equal(t, 200, app.settings("users", map[string]any{"countries": tc.countries}).Status)
			for _, phone := range tc.open {
				app.request(phone)
			}
			for _, phone := range tc.closed {
				res := app.ask("request-phone-otp", map[string]any{"phone": phone}, "")
				require.Equal(t, 400, res.Status, phone)
				require.Contains(t, res.String(), `"phone":{"code":"country_not_allowed"`)
			}
			require.Equal(t, len(tc.open), app.count("groundwork_phone_codes", "1=1"))
		})
	}
}

// In production the code goes out by the transactional sender and nothing of it is
// left; without one, everybody is answered alike and the delivery says why.
func TestCodesInProduction(t *testing.T) {
	t.Parallel()
	twilio := providertest.NewTwilio(t, providertest.TwilioOptions{})
	app := newPhones(t, pbtest.WithConfig(production))
	app.Settings().Meta.AppURL, app.Settings().Meta.AppName = "https://shop.example.com/app", "Käse & Söhne ✨ Żółć"
	require.NoError(t, app.Save(app.Settings()))
	me := app.person("me@example.com", phoneA, true)

	for phone, reason := range map[string]string{phoneA: "no_provider", phoneB: "no_account"} {
		refused(t, app.signIn(app.request(phone), "000000"))
		require.Equal(t, reason, app.last()["reason"])
	}

	app.Record(notifications.CollectionProviders, map[string]any{"name": "codes", "channel": "sms_transactional", "config": twilio.Config(),
		"secret": twilio.AuthToken(), "senderId": "+447700900999", "enabled": true})
	otpID := app.request(phoneA)
	d := app.last()
	require.Equal(t, "accepted", d["status"], d)
	require.Nil(t, d["rendered"])
	require.Equal(t, "…0101", d["address"])
	sent := twilio.To(phoneA)
	require.Len(t, sent, 1)
	require.Regexp(t, `^(\d{8}) is your sign-in code for Käse & Söhne\. Do not share it\.\n\n@shop\.example\.com #\d{8}$`, sent[0].Body)
	parts, encoding := notifications.Segments(sent[0].Body)
	require.Equal(t, "1 GSM-7", fmt.Sprint(parts, " ", encoding))
	require.LessOrEqual(t, sent[0].ValidityPeriod, 180, "no longer than the code")
	require.Positive(t, sent[0].ValidityPeriod)
	app.nothingSealed()
	res := app.signIn(otpID, digits.FindString(sent[0].Body))
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, me.Id, res.JSON(t)["record"].(map[string]any)["id"])

	// Who told this sender to stop gets no code, and nobody can tell from outside.
	app.Record(notifications.CollectionSuppressions, map[string]any{"channel": "sms", "address": phoneA, "kind": "transactional", "reason": "stop"})
	app.request(phoneA)
	require.Equal(t, "suppressed", app.last()["reason"])
	app.request(phoneB)
	app.last()
	require.Equal(t, 1, twilio.Total())
}

func TestMFAWithACodeByPhone(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.otp("users", func(c *core.Collection) { c.MFA.Enabled = true })
	me := app.person("me@example.com", phoneA, false)

	res := app.ask("auth-with-password", map[string]any{"identity": "me@example.com", "password": pbtest.Password}, "")
	require.Equal(t, 401, res.Status, res.String())
	mfaID := res.JSON(t)["mfaId"]
	res = app.ask("auth-with-otp", map[string]any{"otpId": app.request(phoneA), "password": app.code(), "mfaId": mfaID}, "")
	require.Equal(t, 200, res.Status, res.String())
	require.True(t, app.Reload(me).ValidatePassword(pbtest.Password), "it is the other factor")

	// A code alone is one factor.
	res = app.signIn(app.request(phoneA), app.code())
	require.Equal(t, 401, res.Status, res.String())
	mfaID = res.JSON(t)["mfaId"]
	require.NotEmpty(t, mfaID)
	res = app.ask("auth-with-otp", map[string]any{"otpId": app.request(phoneA), "password": app.code(), "mfaId": mfaID}, "")
	require.Equal(t, 400, res.Status, "twice the same factor")
	res = app.signIn(app.request(phoneA), app.code())
	res = app.ask("auth-with-password", map[string]any{"identity": "me@example.com", "password": pbtest.Password, "mfaId": res.JSON(t)["mfaId"]}, "")
	require.Equal(t, 200, res.Status, res.String())
}

func TestPhoneOfOtherCollections(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	ask := func(collection, phone string) pbtest.Response {
		t.Helper()
		return app.Send("POST", "/api/collections/"+collection+"/request-phone-otp", map[string]any{"phone": phone}, "")
	}
	create := func(name string, change func(c *core.Collection)) *core.Collection {
		t.Helper()
		c := core.NewAuthCollection(name)
		c.OTP.Enabled = true
		change(c)
		require.NoError(t, app.Save(c))
		return c
	}
	create("nophone", func(c *core.Collection) {})
	create("off", func(c *core.Collection) { c.OTP.Enabled = false; c.Fields.Add(&core.TextField{Name: "phone"}) })
	create("number", func(c *core.Collection) { c.Fields.Add(&core.NumberField{Name: "phone"}) })
	create("odd", func(c *core.Collection) {
		c.Fields.Add(&core.TextField{Name: "phone"}, &core.TextField{Name: "phoneVerified"})
	})
	for name, want := range map[string]struct {
		status int
		says   string
	}{
		"nobody":      {404, "There is no auth collection with this name."},
		"devices":     {404, "There is no auth collection with this name."},
		"_superusers": {400, "Superusers do not sign in by phone."},
		"nophone":     {400, "it has no field called phone"},
		"off":         {400, "switch on One-time password (OTP) in the options of off"},
		"number":      {400, "have to be a text and a bool"},
		"odd":         {400, "have to be a text and a bool"},
	} {
		res := ask(name, phoneA)
		require.Equal(t, want.status, res.Status, name)
		require.Contains(t, res.JSON(t)["message"], want.says)
	}
	for _, body := range []any{"{", map[string]any{}, map[string]any{"phone": ""}, map[string]any{"phone": "12"}, map[string]any{"phone": []string{phoneA}}, map[string]any{"phone": "0151 1234567"}} {
		require.Equal(t, 400, app.Send("POST", "/api/collections/users/request-phone-otp", body, "").Status, body)
	}

	// Only administrators write these records: what they say counts.
	drivers := create("drivers", func(c *core.Collection) { c.Fields.Add(&core.TextField{Name: "phone"}) })
	field := drivers.Fields.GetByName("phoneVerified")
	require.True(t, field.GetSystem() && field.GetHidden())
	driver := app.Record("drivers", map[string]any{"email": "d@example.com", "password": "1234567890", "phone": "+44 (7700) 900101", "phoneVerified": true})
	require.Equal(t, phoneA, driver.GetString("phone"), "in the form in which it is looked up")
	require.False(t, app.Reload(driver).GetBool("phoneVerified"), "only the server proves a phone")
	res := ask("drivers", phoneA)
	require.Equal(t, 200, res.Status, res.String())
	res = app.Send("POST", "/api/collections/drivers/auth-with-otp", map[string]any{"otpId": res.JSON(t)["otpId"], "password": app.code()}, "")
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, true, res.JSON(t)["record"].(map[string]any)["phoneVerified"])
	driver = app.Reload(driver)
	require.True(t, driver.GetBool("phoneVerified"))
	another := app.Record("drivers", map[string]any{"email": "e@example.com", "password": "1234567890", "phone": phoneA})
	another.Set("phoneVerified", true)
	require.Error(t, app.SaveWithContext(notifications.AsServer(context.Background()), another), "a verified number is one account's")

	// People write these themselves: a claim counts for nothing until it is proved.
	create("members", func(c *core.Collection) {
		c.Fields.Add(&core.TextField{Name: "phone"})
		c.CreateRule, c.UpdateRule = types.Pointer(""), types.Pointer("id = @request.auth.id")
	})
	res = app.Send("POST", "/api/collections/members/records", map[string]any{"email": "thief@example.com", "password": "1234567890", "passwordConfirm": "1234567890", "phone": phoneB, "phoneVerified": true}, "")
	require.Equal(t, 200, res.Status, res.String())
	require.Equal(t, 200, ask("members", phoneB).Status)
	require.Equal(t, "phone_unverified", app.last()["reason"])
	member := app.Record("members", map[string]any{"email": "m@example.com", "password": "1234567890"})
	token := app.Token(member)
	send := func(path string, body map[string]any) pbtest.Response {
		return app.Send("POST", "/api/collections/members/"+path, body, token)
	}
	res = send("request-phone-verification", map[string]any{"phone": phoneB})
	require.Equal(t, 200, res.Status, res.String())
	res = send("confirm-phone-verification", map[string]any{"otpId": res.JSON(t)["otpId"], "code": app.code()})
	require.Equal(t, 200, res.Status, res.String())
	res = ask("members", phoneB)
	res = app.Send("POST", "/api/collections/members/auth-with-otp", map[string]any{"otpId": res.JSON(t)["otpId"], "password": app.code()}, "")
	require.Equal(t, member.Id, res.JSON(t)["record"].(map[string]any)["id"])
	patch := func(body map[string]any) {
		res := app.Send("PATCH", "/api/collections/members/records/"+member.Id, body, token)
		require.Equal(t, 200, res.Status, res.String())
	}
	patch(map[string]any{"phoneVerified": false})
	require.True(t, app.Reload(member).GetBool("phoneVerified"))
	patch(map[string]any{"phone": phoneC, "phoneVerified": true})
	require.False(t, app.Reload(member).GetBool("phoneVerified"))

	// With sign-up on, the holder of a number that others only claim gets an account
	// of their own.
	app.Record(accounts.CollectionPhoneSignIn, map[string]any{"collection": "members", "enabled": true, "phoneSignUp": true})
	res = ask("members", phoneB)
	res = app.Send("POST", "/api/collections/members/auth-with-otp", map[string]any{"otpId": res.JSON(t)["otpId"], "password": app.code()}, "")
	require.Equal(t, 200, res.Status, res.String())
	require.Empty(t, res.JSON(t)["record"].(map[string]any)["email"])
}

// What a request stores is stored together or not at all.
func TestACodeIsStoredWithItsJob(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	app.person("me@example.com", phoneA, true)
	app.sql("ALTER TABLE groundwork_outbox RENAME TO elsewhere")
	res := app.ask("request-phone-otp", map[string]any{"phone": phoneA}, "")
	app.sql("ALTER TABLE elsewhere RENAME TO groundwork_outbox")
	require.Equal(t, 500, res.Status)
	for _, table := range []string{"groundwork_phone_codes", "groundwork_phone_texts", "groundwork_sealed", "notification_deliveries"} {
		where := "1=1"
		if table == "groundwork_sealed" {
			where = "purpose = 'mail'"
		}
		require.Zero(t, app.count(table, where), table)
	}
	require.Equal(t, 200, app.signIn(app.request(phoneA), app.code()).Status)
}

// Numbers are looked up by an index, also those that nobody has proved.
func TestPhonesAreIndexed(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	for _, verified := range []string{"= 1", "!= 1"} {
		var plan []struct {
			Detail string `db:"detail"`
		}
		require.NoError(t, app.ConcurrentDB().NewQuery("EXPLAIN QUERY PLAN SELECT users.* FROM users WHERE (phone = '+1' AND phone != '') AND (phoneVerified "+verified+") LIMIT 2").All(&plan))
		require.Contains(t, plan[0].Detail, "USING INDEX idx_gw_users_phone")
	}
}
