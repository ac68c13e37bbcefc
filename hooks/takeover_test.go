package hooks_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/pocketbase/pocketbase/tools/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
	"github.com/groundworkhq/groundwork/notifications"
)

// outcome is how an attempt ends.
type outcome string

const (
	// endsRefused: every request of the attempt is answered with an error, and nothing
	// in the database is another than before.
	endsRefused outcome = "refused"

	// endsHarmless: at least one request is answered as done, and nothing that is the
	// victim's, and nothing that would make the attacker somebody else, is another
	// than before. What may change is named in the row.
	endsHarmless outcome = "harmless"
)

// takeover is one way to get at what is somebody else's.
type takeover struct {
	name string
	want outcome

	// batch: the same through /api/batch. Its requests are of the records API.
	batch bool

	// changes are what the attempt may change, such as "attacker/devices". The row
	// looks at these itself.
	changes []string

	try func(x *attempt)
}

// attempt is one takeover under way. There are two people, each with a phone, a
// subscription, preferences, a message in the inbox, and signed in once.
type attempt struct {
	*phones
	t                *testing.T
	inBatch          bool
	victim, attacker *core.Record
	victimToken      string // of a sign-in with a session
	attackerToken    string
	n                int
	phone            string // the victim's, verified; the attacker has none
	theirs, own      map[string]*core.Record

	answers []pbtest.Response
	before  map[string]string
}

// The collections whose records belong to people, with the field that says whose.
var takeoverOwner = map[string]string{
	notifications.CollectionDevices: "user", notifications.CollectionSubscriptions: "user", notifications.CollectionPreferences: "user",
	notifications.CollectionInbox: "user", accounts.CollectionSessions: "recordRef",
}

func records(collection string, id ...string) string {
	return "/api/collections/" + collection + "/records" + strings.Join(append([]string{""}, id...), "/")
}

// ask sends one request of the attempt, in a batch when this is the batch's turn,
// and remembers its answer.
func (x *attempt) ask(method, path string, body any, token string) pbtest.Response {
	x.t.Helper()
	if !x.inBatch {
		return x.answered(x.Send(method, path, body, token))
	}
	if body == nil {
		body = map[string]any{}
	}
	return x.batch(token, map[string]any{"method": method, "url": path, "body": body})
}

// batch sends a batch of one and remembers the answer to what is in it.
func (x *attempt) batch(token string, request map[string]any) pbtest.Response {
	x.t.Helper()
	res := x.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []any{request}}, token)
	if res.Status == http.StatusOK {
		var inner []struct {
			Status int
			Body   json.RawMessage
		}
		require.NoError(x.t, json.Unmarshal(res.Body, &inner))
		res.Status, res.Body = inner[0].Status, inner[0].Body
	}
	return x.answered(res)
}

func (x *attempt) answered(res pbtest.Response) pbtest.Response {
	x.answers = append(x.answers, res)
	return res
}

// post asks for one of the routes of the users collection.
func (x *attempt) post(action string, body map[string]any, token string) pbtest.Response {
	x.t.Helper()
	return x.ask(http.MethodPost, "/api/collections/users/"+action, body, token)
}

// number is one of three of this attempt, from the range that is kept for films.
func (x *attempt) number(i int) string { return fmt.Sprintf("+447700900%03d", x.n+333*i) }

// ready ends what belongs to the scene: from here on the attempt counts.
func (x *attempt) ready() {
	x.t.Helper()
	x.answers, x.before = nil, x.look()
}

// look is what the database says about both people, about superusers and about the
// installation: one text for each column of each row.
func (x *attempt) look() map[string]string {
	x.t.Helper()
	all := map[string]string{}
	add := func(whose, table string, where dbx.Expression) {
		var rows []dbx.NullStringMap
		require.NoError(x.t, x.ConcurrentDB().Select("*").From(table).Where(where).OrderBy("id").All(&rows))
		for _, row := range rows {
			for column, value := range row {
				if column != "updated" && column != "lastSeenAt" {
					all[whose+"/"+table+"/"+row["id"].String+"/"+column] = value.String
				}
			}
		}
	}
	for whose, person := range map[string]*core.Record{"victim": x.victim, "attacker": x.attacker} {
		add(whose, "users", dbx.HashExp{"id": person.Id})
		for collection, field := range takeoverOwner {
			where := []dbx.Expression{dbx.HashExp{field: person.Id}}
			if collection == accounts.CollectionSessions {
				// Stands for tokens that Go code made for this test, and shows that there are some.
				where = append(where, dbx.NewExp("kind <> 'legacy'"))
			}
			add(whose, x.table(collection), dbx.And(where...))
		}
	}
	add("staff", core.CollectionNameSuperusers, dbx.NewExp("1=1"))
	add("installation", "_collections", dbx.NewExp("1=1"))
	add("installation", "_params", dbx.HashExp{"id": "settings"})
	return all
}

func (x *attempt) table(collection string) string {
	x.t.Helper()
	c, err := x.FindCachedCollectionByNameOrId(collection)
	require.NoError(x.t, err)
	return c.Name
}

// end checks what an attempt came to.
func (x *attempt) end(row takeover) {
	x.t.Helper()
	require.NotEmpty(x.t, x.answers, "nothing was tried")
	done := 0
	for _, res := range x.answers {
		if res.Status < 400 {
			done++
		}
		require.Less(x.t, res.Status, 500, res.String())
	}
	if row.want == endsRefused {
		require.Zero(x.t, done, "answers: %v", x.answers)
	} else {
		require.NotZero(x.t, done, "answers: %v", x.answers)
	}
	before, after := x.before, x.look()
	for _, allowed := range row.changes {
		ours := func(key, _ string) bool { return strings.HasPrefix(key, allowed+"/") }
		maps.DeleteFunc(before, ours)
		maps.DeleteFunc(after, ours)
	}
	maps.DeleteFunc(after, func(key, value string) bool {
		was, ok := before[key]
		if same := ok && was == value; !same {
			return false
		}
		delete(before, key)
		return true
	})
	require.Empty(x.t, before, "was there before")
	require.Empty(x.t, after, "is there now")
}

// stage makes the people of one attempt.
func (p *phones) stage(t *testing.T, n int) *attempt {
	t.Helper()
	x := &attempt{phones: &phones{App: p.App, t: t, admin: p.root()}, t: t, n: n}
	x.phone = x.number(0)
	x.victim = x.person(fmt.Sprintf("victim%d@example.com", n), x.phone, true)
	x.attacker = x.person(fmt.Sprintf("attacker%d@example.com", n), "", false)
	belongings := func(who *core.Record, name string) (string, map[string]*core.Record) {
		token := signIn(t, p.App, who)
		topic := p.Record(notifications.CollectionTopics, map[string]any{"key": fmt.Sprintf("%s-%d", name, n), "name": "News", "open": true})
		owned := map[string]*core.Record{
			notifications.CollectionSubscriptions: p.Record(notifications.CollectionSubscriptions, map[string]any{"user": who.Id, "topic": topic.Id}),
			notifications.CollectionPreferences:   p.Record(notifications.CollectionPreferences, map[string]any{"user": who.Id, "channel": "email", "enabled": true}),
			notifications.CollectionInbox:         p.Record(notifications.CollectionInbox, map[string]any{"user": who.Id, "title": "For " + name}),
			accounts.CollectionSessions:           sessionRow(t, p.App, token),
		}
		device := p.Send(http.MethodPost, devicesPath, map[string]any{"platform": "android", "token": fmt.Sprintf("%s-token-%d", name, n), "model": "canary of " + name}, token)
		require.Equal(t, http.StatusOK, device.Status, device.String())
		owned[notifications.CollectionDevices] = must(p.FindRecordById(notifications.CollectionDevices, device.JSON(t)["id"].(string)))
		return token, owned
	}
	x.victimToken, x.theirs = belongings(x.victim, "victim")
	x.attackerToken, x.own = belongings(x.attacker, "attacker")
	return x
}

// TestTakeovers is the table of all ways to get at what is somebody else's that
// we know of. Each ends refused or harmless, and the database says so.
func TestTakeovers(t *testing.T) {
	t.Parallel()
	app := newPhones(t)
	allowBatch(t, app.App)
	cheap := func(c *core.Collection) { c.Fields.GetByName("password").(*core.PasswordField).Cost = bcrypt.MinCost }
	app.otp("users", func(c *core.Collection) {
		c.OTP.Length = 6
		cheap(c)
	})
	require.Equal(t, http.StatusOK, app.settings("users", map[string]any{"maxPerPrefixPerHour": 10_000, "maxPerHour": 10_000}).Status)
	// Another kind of account that anybody may make.
	members := core.NewAuthCollection("members")
	members.OTP.Enabled = true
	members.CreateRule, members.UpdateRule = types.Pointer(""), types.Pointer("id = @request.auth.id")
	members.Fields.Add(&core.TextField{Name: "phone"})
	cheap(members)
	require.NoError(t, app.Save(members))

	rows := slices.Concat(takeoversOfRecords(), takeoversOfAccounts(), takeoversOfDevices(), takeoversOfNumbers(), takeoversByCodes(),
		takeoversByImpersonation(), takeoversByTokens())
	n := 0
	for _, row := range rows {
		for _, inBatch := range []bool{false, true} {
			if inBatch && !row.batch {
				continue
			}
			name := string(row.want) + ": " + row.name
			if inBatch {
				name += ", in a batch"
			}
			n++
			t.Run(name, func(t *testing.T) {
				x := app.stage(t, n)
				x.inBatch = inBatch
				x.ready()
				row.try(x)
				x.end(row)
			})
		}
	}
}

// What belongs to people: whose it is never changes.
func takeoversOfRecords() (rows []takeover) {
	for _, c := range []struct {
		collection  string
		give        outcome // an own record to somebody else
		asSuperuser outcome // the same by a superuser, who sends whole records back
		createFor   outcome // one for somebody else
	}{
		{collection: notifications.CollectionDevices, give: endsHarmless, asSuperuser: endsHarmless, createFor: endsHarmless},
		{collection: notifications.CollectionSubscriptions, give: endsRefused, asSuperuser: endsHarmless, createFor: endsRefused},
		{collection: notifications.CollectionPreferences, give: endsHarmless, asSuperuser: endsHarmless, createFor: endsRefused},
		{collection: notifications.CollectionInbox, give: endsHarmless, asSuperuser: endsHarmless, createFor: endsRefused},
		{collection: accounts.CollectionSessions, give: endsRefused, asSuperuser: endsRefused, createFor: endsRefused},
	} {
		collection, field := c.collection, takeoverOwner[c.collection]
		body := func(whose *core.Record) map[string]any {
			return map[string]any{field: whose.Id, "collectionRef": whose.Collection().Id, "platform": "android", "token": "new-" + whose.Id, "channel": "sms", "title": "Forged", "kind": "sign_in"}
		}
		name := strings.TrimPrefix(collection, "gw_")
		rows = append(rows,
			takeover{name: name + ": make somebody's record one's own", want: endsRefused, batch: true, try: func(x *attempt) {
				x.ask(http.MethodPatch, records(collection, x.theirs[collection].Id), map[string]any{field: x.attacker.Id}, x.attackerToken)
				x.ask(http.MethodPatch, records(collection, x.theirs[collection].Id), map[string]any{field: x.attacker.Id}, "")
			}},
			takeover{name: name + ": make the own record somebody's", want: c.give, batch: true, try: func(x *attempt) {
				x.ask(http.MethodPatch, records(collection, x.own[collection].Id), map[string]any{field: x.victim.Id, "collectionRef": "_superusers"}, x.attackerToken)
			}},
			takeover{name: name + ": a superuser changes whose it is", want: c.asSuperuser, batch: true, try: func(x *attempt) {
				x.ask(http.MethodPatch, records(collection, x.theirs[collection].Id), map[string]any{field: x.attacker.Id}, x.root())
			}},
			takeover{name: name + ": delete somebody's", want: endsRefused, batch: true, try: func(x *attempt) {
				x.ask(http.MethodDelete, records(collection, x.theirs[collection].Id), nil, x.attackerToken)
				x.ask(http.MethodDelete, records(collection, x.theirs[collection].Id), nil, "")
			}},
			takeover{name: name + ": write over somebody's by its id", want: endsRefused, try: func(x *attempt) {
				over := body(x.attacker)
				over["id"] = x.theirs[collection].Id
				x.batch(x.attackerToken, map[string]any{"method": "PUT", "url": records(collection), "body": over})
				x.ask(http.MethodPost, records(collection), over, x.attackerToken)
			}},
			takeover{name: name + ": make one for somebody", want: c.createFor, batch: true, changes: map[outcome][]string{endsHarmless: {"attacker/devices"}}[c.createFor], try: func(x *attempt) {
				res := x.ask(http.MethodPost, records(collection), body(x.victim), x.attackerToken)
				if c.createFor == endsHarmless {
					require.Equal(x.t, x.attacker.Id, res.JSON(x.t)[field], "it is whose request it was")
				}
			}})
	}
	return rows
}

// What an account is known by: its number, address, password and keys.
func takeoversOfAccounts() []takeover {
	patch := func(fields func(x *attempt) map[string]any) func(x *attempt) {
		return func(x *attempt) {
			x.ask(http.MethodPatch, records("users", x.attacker.Id), fields(x), x.attackerToken)
		}
	}
	constant := func(fields map[string]any) func(x *attempt) map[string]any {
		return func(*attempt) map[string]any { return fields }
	}
	return []takeover{
		{name: "users: the owner sets phone to somebody's number", want: endsHarmless, batch: true, try: patch(func(x *attempt) map[string]any { return map[string]any{"phone": x.phone} })},
		{name: "users: the owner sets phone and phoneVerified", want: endsHarmless, batch: true, try: patch(constant(map[string]any{"phone": "+447700900001", "phoneVerified": true}))},
		{name: "users: the owner sets phoneVerified on a number that nobody proved", want: endsHarmless, batch: true, try: func(x *attempt) {
			x.attacker.Set("phone", x.number(1))
			require.NoError(x.t, x.Save(x.attacker))
			x.ready()
			patch(constant(map[string]any{"phoneVerified": true}))(x)
			require.False(x.t, x.Reload(x.attacker).GetBool("phoneVerified"))
		}},
		{name: "users: a superuser sends phoneVerified along", want: endsHarmless, batch: true, try: func(x *attempt) {
			x.ask(http.MethodPatch, records("users", x.attacker.Id), map[string]any{"phoneVerified": true}, x.root())
			x.ask(http.MethodPatch, records("users", x.victim.Id), map[string]any{"phoneVerified": false}, x.root())
		}},
		{name: "users: the owner sets email to somebody's or calls it verified", want: endsRefused, batch: true, try: func(x *attempt) {
			patch(func(x *attempt) map[string]any { return map[string]any{"email": x.victim.Email()} })(x)
			patch(constant(map[string]any{"email": "free@example.com"}))(x)
			patch(constant(map[string]any{"verified": false}))(x)
		}},
		{name: "users: the owner sets tokenKey", want: endsHarmless, batch: true, try: patch(constant(map[string]any{"tokenKey": strings.Repeat("k", 50)}))},
		{name: "users: the owner sets a password without the old one", want: endsRefused, batch: true, try: patch(constant(map[string]any{"password": "another-password", "passwordConfirm": "another-password"}))},
		{name: "users: the owner becomes somebody by id", want: endsRefused, batch: true, try: patch(func(x *attempt) map[string]any { return map[string]any{"id": x.victim.Id} })},
		{name: "users: somebody else's account is changed", want: endsRefused, batch: true, try: func(x *attempt) {
			for _, body := range []map[string]any{{"phone": ""}, {"phoneVerified": false}, {"email": x.attacker.Email()}, {"password": "another-password", "passwordConfirm": "another-password", "oldPassword": pbtest.Password}} {
				x.ask(http.MethodPatch, records("users", x.victim.Id), body, x.attackerToken)
			}
			x.ask(http.MethodDelete, records("users", x.victim.Id), nil, x.attackerToken)
		}},
		{name: "users: sign up with somebody's number, verified", want: endsHarmless, batch: true, try: func(x *attempt) {
			res := x.ask(http.MethodPost, records("users"), map[string]any{"email": "new-" + x.attacker.Email(), "password": pbtest.Password, "passwordConfirm": pbtest.Password, "phone": x.phone, "phoneVerified": true, "verified": false}, "")
			made := must(x.FindAuthRecordByEmail("users", "new-"+x.attacker.Email()))
			require.Empty(x.t, made.GetString("phone"), res)
			require.False(x.t, made.GetBool("phoneVerified"))
		}},
		{name: "users: sign up with somebody's id", want: endsRefused, batch: true, try: func(x *attempt) {
			x.ask(http.MethodPost, records("users"), map[string]any{"id": x.victim.Id, "email": "id-" + x.attacker.Email(), "password": pbtest.Password, "passwordConfirm": pbtest.Password}, "")
		}},
		{name: "users: sign up as a superuser", want: endsRefused, batch: true, try: func(x *attempt) {
			for _, token := range []string{"", x.attackerToken} {
				x.ask(http.MethodPost, records(core.CollectionNameSuperusers), map[string]any{"email": x.attacker.Email(), "password": pbtest.Password, "passwordConfirm": pbtest.Password}, token)
			}
		}},
		{name: "another collection: an account with the same id", want: endsRefused, try: func(x *attempt) {
			x.ask(http.MethodPost, records("members"), map[string]any{"id": x.victim.Id, "email": "twin@example.com", "password": pbtest.Password, "passwordConfirm": pbtest.Password}, "")
			require.Equal(x.t, 400, x.answers[0].Status, "whoever signs up cannot choose it")
			// Raw SQL can make one all the same.
			twin := x.Record("members", map[string]any{"email": "twin@example.com", "password": pbtest.Password})
			x.sql("UPDATE members SET id = {:id} WHERE id = {:was}", dbx.Params{"id": x.victim.Id, "was": twin.Id})
			token := x.Send(http.MethodPost, "/api/collections/members/auth-with-password", map[string]any{"identity": "twin@example.com", "password": pbtest.Password}, "").JSON(x.t)["token"].(string)
			x.ready()
			for collection := range takeoverOwner {
				for _, item := range list(x.t, x.App, records(collection), token) {
					require.Equal(x.t, sessionID(x.t, token), item["id"], "the twin sees the own session only, in %s", collection)
				}
				x.ask(http.MethodPatch, records(collection, x.theirs[collection].Id), map[string]any{"readAt": "2026-01-01 00:00:00Z", "model": "x", "enabled": false}, token)
				x.ask(http.MethodDelete, records(collection, x.theirs[collection].Id), nil, token)
			}
			x.ask(http.MethodPatch, records("users", x.victim.Id), map[string]any{"name": "x"}, token)
			x.ask(http.MethodPost, devicesPath, android("twins-token"), token)
			x.ask(http.MethodPost, records(notifications.CollectionPreferences), map[string]any{"channel": "sms"}, token)
			x.ask(http.MethodPost, "/api/collections/users/request-phone-verification", map[string]any{"phone": "+447700900001"}, token)
			x.ask(http.MethodPost, "/api/collections/users/auth-refresh", nil, token)
		}},
	}
}

// Whoever knows a device's token can have the device, and nothing besides.
func takeoversOfDevices() []takeover {
	take := func(x *attempt, by *core.Record, token string) pbtest.Response {
		return x.ask(http.MethodPost, devicesPath, android(token), map[*core.Record]string{x.attacker: x.attackerToken, x.victim: x.victimToken}[by])
	}
	// reached are the devices that a push to a person would go to.
	reached := func(x *attempt, who *core.Record) (ids []string) {
		for _, r := range must(x.FindAllRecords(notifications.CollectionDevices, dbx.HashExp{"user": who.Id, "status": "active"})) {
			ids = append(ids, r.GetString("token"))
		}
		slices.Sort(ids)
		return ids
	}
	return []takeover{
		{name: "devices: create with a known token, then the owner takes it back", want: endsHarmless, batch: true, changes: []string{"attacker/devices", "victim/devices"}, try: func(x *attempt) {
			device := x.theirs[notifications.CollectionDevices]
			second := registered(x.t, x.App, x.victim, android("second-"+device.GetString("token")))["token"].(string)
			x.ready()
			token, own := device.GetString("token"), x.own[notifications.CollectionDevices].GetString("token")

			// What the attacker gets: the row as if it were new, and what is sent to the
			// attacker. Not what it held, and nothing that was sent to the victim.
			res := take(x, x.attacker, token)
			require.Equal(x.t, http.StatusOK, res.Status, res.String())
			require.NotContains(x.t, res.String(), "canary of victim")
			require.NotContains(x.t, res.String(), x.victim.Id)
			require.Equal(x.t, []string{own, token}, slices.Sorted(slices.Values(reached(x, x.attacker))))
			for _, collection := range []string{notifications.CollectionInbox, accounts.CollectionSessions} {
				for _, item := range list(x.t, x.App, records(collection), x.attackerToken) {
					require.Equal(x.t, x.attacker.Id, item[takeoverOwner[collection]])
				}
			}
			// What the owner still has: the sign-in, the other devices, the inbox.
			require.Equal(x.t, []string{second}, reached(x, x.victim))
			require.NotEmpty(x.t, list(x.t, x.App, records(notifications.CollectionInbox), x.victimToken))

			// And at the next start of the app the device is the owner's again.
			res = take(x, x.victim, token)
			require.Equal(x.t, http.StatusOK, res.Status, res.String())
			require.Equal(x.t, []string{second, token}, reached(x, x.victim))
			require.Equal(x.t, []string{own}, reached(x, x.attacker))
			require.Equal(x.t, sessionID(x.t, x.victimToken), x.Reload(device).GetString("session"), "it ends with the owner's sign-in, not with the attacker's")
		}},
		{name: "devices: again and again, until the owner keeps it", want: endsHarmless, batch: true, changes: []string{"attacker/devices", "victim/devices"}, try: func(x *attempt) {
			token := x.theirs[notifications.CollectionDevices].GetString("token")
			for i := range 10 {
				require.Equal(x.t, http.StatusOK, take(x, x.attacker, token).Status, i)
				require.Equal(x.t, http.StatusOK, take(x, x.victim, token).Status, i)
			}
			require.GreaterOrEqual(x.t, take(x, x.attacker, token).Status, 400)
			require.Equal(x.t, []string{token}, reached(x, x.victim))
		}},
		{name: "devices: end the victim's push by the session of a device that was taken", want: endsHarmless, changes: []string{"attacker/devices", "victim/devices", "attacker/sessions"}, try: func(x *attempt) {
			token := x.theirs[notifications.CollectionDevices].GetString("token")
			require.Equal(x.t, http.StatusOK, take(x, x.attacker, token).Status)
			require.Equal(x.t, http.StatusOK, take(x, x.victim, token).Status)
			x.ask(http.MethodPost, "/api/logout", nil, x.attackerToken)
			require.Equal(x.t, []string{token}, reached(x, x.victim))
		}},
		{name: "devices: register it without signing in", want: endsRefused, batch: true, try: func(x *attempt) {
			x.ask(http.MethodPost, devicesPath, android(x.theirs[notifications.CollectionDevices].GetString("token")), "")
		}},
		{name: "devices: send another status, token or session", want: endsHarmless, batch: true, try: func(x *attempt) {
			x.ask(http.MethodPatch, records(notifications.CollectionDevices, x.own[notifications.CollectionDevices].Id), map[string]any{
				"token": x.theirs[notifications.CollectionDevices].GetString("token"), "session": sessionID(x.t, x.victimToken), "status": "gone", "platform": "web"}, x.attackerToken)
		}},
	}
}

// Two people may claim a number. Whoever proves it by a code has it.
func takeoversOfNumbers() []takeover {
	claim := func(x *attempt, who *core.Record) {
		x.t.Helper()
		res := x.Send(http.MethodPatch, records("users", who.Id), map[string]any{"phone": x.phone}, x.root())
		require.Equal(x.t, http.StatusOK, res.Status, res.String())
	}
	unprove := func(x *attempt) {
		x.t.Helper()
		x.sql("UPDATE users SET phoneVerified = 0 WHERE id = {:id}", dbx.Params{"id": x.victim.Id})
	}
	return []takeover{
		{name: "a number: claim one that is proved", want: endsHarmless, changes: []string{"victim/sessions"}, try: func(x *attempt) {
			claim(x, x.attacker)
			x.ready()
			require.Equal(x.t, http.StatusOK, x.post("request-phone-otp", map[string]any{"phone": x.phone}, "").Status)
			// The code goes to the phone, and leads its holder to the account that has proved it.
			res := x.signIn(x.answers[0].JSON(x.t)["otpId"].(string), x.code())
			require.Equal(x.t, x.victim.Id, res.JSON(x.t)["record"].(map[string]any)["id"])
			// Nobody else can prove it.
			res = x.post("request-phone-verification", map[string]any{}, x.attackerToken)
			require.Equal(x.t, "phone_taken", x.last()["reason"])
			refused(x.t, x.post("confirm-phone-verification", map[string]any{"otpId": res.JSON(x.t)["otpId"], "code": "000000"}, x.attackerToken))
		}},
		{name: "a number: both claim it and nobody has proved it", want: endsHarmless, changes: []string{"victim/users", "victim/sessions"}, try: func(x *attempt) {
			unprove(x)
			claim(x, x.attacker) // both may hold it
			x.ready()
			res := x.post("request-phone-otp", map[string]any{"phone": x.phone}, "")
			require.Equal(x.t, "phone_ambiguous", x.last()["reason"], "it leads to neither")
			refused(x.t, x.signIn(res.JSON(x.t)["otpId"].(string), "000000"))
			// A code from before the other's proof.
			early := x.post("request-phone-verification", map[string]any{"phone": x.phone}, x.attackerToken).JSON(x.t)["otpId"]
			earlyCode := x.code()

			// The victim holds the phone and proves it.
			id := x.Send(http.MethodPost, "/api/collections/users/request-phone-verification", map[string]any{"phone": x.phone}, x.victimToken).JSON(x.t)["otpId"]
			res = x.Send(http.MethodPost, "/api/collections/users/confirm-phone-verification", map[string]any{"otpId": id, "code": x.code()}, x.victimToken)
			require.Equal(x.t, http.StatusOK, res.Status, res.String())
			signedIn := x.signIn(x.request(x.phone), x.code())
			require.Equal(x.t, x.victim.Id, signedIn.JSON(x.t)["record"].(map[string]any)["id"])

			// The other's claim is worth nothing any more.
			refused(x.t, x.post("confirm-phone-verification", map[string]any{"otpId": early, "code": earlyCode}, x.attackerToken))
			x.post("request-phone-verification", map[string]any{"phone": x.phone}, x.attackerToken)
			require.Equal(x.t, "phone_taken", x.last()["reason"])
			require.False(x.t, x.Reload(x.attacker).GetBool("phoneVerified"))
		}},
		{name: "a number: the attacker claimed it first, and has a sign-in and a password", want: endsHarmless, changes: []string{"attacker/users", "attacker/sessions", "attacker/devices"}, try: func(x *attempt) {
			// The holder of the number signs in to the account that waits for them there:
			// from then on it is theirs alone.
			x.sql("UPDATE users SET phone = '', phoneVerified = 0 WHERE id = {:id}", dbx.Params{"id": x.victim.Id})
			claim(x, x.attacker)
			x.ready()
			res := x.answered(x.signIn(x.request(x.phone), x.code()))
			require.Equal(x.t, x.attacker.Id, res.JSON(x.t)["record"].(map[string]any)["id"])
			require.Equal(x.t, http.StatusUnauthorized, x.ask(http.MethodGet, records("users"), nil, x.attackerToken).Status, "the attacker is signed out")
			require.Equal(x.t, 400, x.post("auth-with-password", map[string]any{"identity": x.attacker.Email(), "password": pbtest.Password}, "").Status)
			require.Equal(x.t, "signed_out", x.Reload(x.own[notifications.CollectionDevices]).GetString("status"))
		}},
		{name: "a number: take a proved one by a superuser's slip", want: endsHarmless, changes: []string{"attacker/users"}, try: func(x *attempt) {
			x.ask(http.MethodPatch, records("users", x.attacker.Id), map[string]any{"phone": x.phone, "phoneVerified": true}, x.root())
			require.False(x.t, x.Reload(x.attacker).GetBool("phoneVerified"))
		}},
	}
}

// A code is good for one thing, one account and one collection.
func takeoversByCodes() []takeover {
	// mailed asks for a code by e-mail and returns both parts.
	mailed := func(x *attempt, who *core.Record) (id, code string) {
		x.t.Helper()
		res := x.Send(http.MethodPost, "/api/collections/users/request-otp", map[string]any{"email": who.Email()}, "")
		require.Equal(x.t, http.StatusOK, res.Status, res.String())
		id = res.JSON(x.t)["otpId"].(string)
		otp := must(x.FindOTPById(id))
		otp.SetPassword("654321") // in place of reading it in the mail
		require.NoError(x.t, x.Save(otp))
		return id, "654321"
	}
	enter := func(x *attempt, id any, code string) {
		x.t.Helper()
		res := x.post("auth-with-otp", map[string]any{"otpId": id, "password": code}, "")
		require.Equal(x.t, 400, res.Status, res.String())
	}
	confirm := func(x *attempt, id any, code, token string) {
		x.t.Helper()
		res := x.post("confirm-phone-verification", map[string]any{"otpId": id, "code": code}, token)
		require.Equal(x.t, 400, res.Status, res.String())
	}
	// ownCode is a code for a number that the attacker has.
	ownCode := func(x *attempt) (id, code string) {
		x.t.Helper()
		return x.verify(x.attacker, x.number(1)), x.code()
	}
	return []takeover{
		{name: "codes: one to sign in changes no number", want: endsRefused, try: func(x *attempt) {
			id := x.request(x.phone)
			code := x.code()
			confirm(x, id, code, x.attackerToken)
			confirm(x, id, code, x.victimToken)
		}},
		{name: "codes: one to change a number signs nobody in", want: endsRefused, try: func(x *attempt) {
			id, code := ownCode(x)
			enter(x, id, code)
			id = x.verify(x.victim, x.phone)
			enter(x, id, x.code())
		}},
		{name: "codes: somebody else's to change a number", want: endsRefused, try: func(x *attempt) {
			id := x.verify(x.victim, x.number(2))
			confirm(x, id, x.code(), x.attackerToken)
		}},
		{name: "codes: the victim's id by phone with the own code by phone", want: endsRefused, try: func(x *attempt) {
			_, code := ownCode(x)
			enter(x, x.request(x.phone), code)
		}},
		{name: "codes: the victim's id by e-mail with a code by phone", want: endsRefused, try: func(x *attempt) {
			id, _ := mailed(x, x.victim)
			own, code := ownCode(x)
			enter(x, id, code)
			x.request(x.phone)
			enter(x, id, x.code()) // even the victim's own one by phone
			confirm(x, id, code, x.attackerToken)
			enter(x, own, "654321")
		}},
		{name: "codes: the victim's id by phone with a code by e-mail", want: endsRefused, try: func(x *attempt) {
			_, code := mailed(x, x.attacker)
			id := x.request(x.phone)
			enter(x, id, code)
			confirm(x, id, code, x.attackerToken)
		}},
		{name: "codes: one by e-mail verifies no phone", want: endsRefused, try: func(x *attempt) {
			id, code := mailed(x, x.attacker)
			confirm(x, id, code, x.attackerToken)
		}},
		{name: "codes: one of another collection", want: endsRefused, try: func(x *attempt) {
			member := x.Record("members", map[string]any{"email": "m-" + x.attacker.Email(), "password": pbtest.Password, "phone": x.phone})
			token := x.Token(member)
			id := x.Send(http.MethodPost, "/api/collections/members/request-phone-verification", map[string]any{"phone": x.phone}, token).JSON(x.t)["otpId"]
			res := x.Send(http.MethodPost, "/api/collections/members/confirm-phone-verification", map[string]any{"otpId": id, "code": x.code()}, token)
			require.Equal(x.t, http.StatusOK, res.Status, "the number may be proved in each collection: %s", res)
			res = x.Send(http.MethodPost, "/api/collections/members/request-phone-otp", map[string]any{"phone": x.phone}, "")
			code := x.code()
			x.ready()
			enter(x, res.JSON(x.t)["otpId"], code)
			// And the other way round.
			id = x.request(x.phone)
			code = x.code()
			for _, collection := range []string{"members", core.CollectionNameSuperusers} {
				res = x.ask(http.MethodPost, "/api/collections/"+collection+"/auth-with-otp", map[string]any{"otpId": id, "password": code}, "")
				require.GreaterOrEqual(x.t, res.Status, 400)
			}
			mail, code := mailed(x, x.victim)
			x.ask(http.MethodPost, "/api/collections/members/auth-with-otp", map[string]any{"otpId": mail, "password": code}, "")
		}},
		{name: "codes: a second time", want: endsHarmless, changes: []string{"victim/sessions"}, try: func(x *attempt) {
			id := x.request(x.phone)
			code := x.code()
			require.Equal(x.t, http.StatusOK, x.answered(x.signIn(id, code)).Status, "the victim")
			x.sql("DELETE FROM sessions WHERE recordRef = {:id} AND id <> {:kept}", dbx.Params{"id": x.victim.Id, "kept": sessionID(x.t, x.victimToken)})
			enter(x, id, code)
			require.Equal(x.t, 1, x.count("sessions", "recordRef = '"+x.victim.Id+"' AND kind = 'sign_in'"))
		}},
		{name: "codes: in a batch", want: endsRefused, try: func(x *attempt) {
			id := x.request(x.phone)
			code := x.code()
			for _, path := range []string{"/api/collections/users/auth-with-otp", "/api/collections/users/confirm-phone-verification"} {
				x.batch(x.attackerToken, map[string]any{"method": http.MethodPost, "url": path, "body": map[string]any{"otpId": id, "password": code, "code": code}})
			}
		}},
	}
}

// A superuser may act as a person. The person sees it, and can end it.
func takeoversByImpersonation() []takeover {
	impersonate := func(x *attempt) string {
		x.t.Helper()
		res := x.Send(http.MethodPost, "/api/collections/users/impersonate/"+x.victim.Id, map[string]any{"duration": 600}, x.root())
		require.Equal(x.t, http.StatusOK, res.Status, res.String())
		return res.JSON(x.t)["token"].(string)
	}
	return []takeover{
		{name: "impersonation: people impersonate people", want: endsRefused, try: func(x *attempt) {
			as := impersonate(x)
			x.ready()
			for _, token := range []string{"", x.attackerToken, as} {
				for _, path := range []string{"users/impersonate/" + x.victim.Id, "users/impersonate/" + x.attacker.Id, "_superusers/impersonate/" + must(x.FindAuthRecordByEmail("_superusers", "root@example.com")).Id} {
					x.ask(http.MethodPost, "/api/collections/"+path, nil, token)
				}
			}
		}},
		{name: "impersonation: what its token may not", want: endsRefused, try: func(x *attempt) {
			as := impersonate(x)
			x.ready()
			x.ask(http.MethodDelete, "/api/account", nil, as)
			x.ask(http.MethodGet, "/api/account/export", nil, as)
			x.ask(http.MethodPatch, records("users", x.victim.Id), map[string]any{"password": "another-password", "passwordConfirm": "another-password"}, as)
			x.ask(http.MethodPatch, records("users", x.victim.Id), map[string]any{"email": "other@example.com"}, as)
			x.ask(http.MethodPatch, records("users", x.attacker.Id), map[string]any{"name": "x"}, as)
			for _, path := range superuserRoutes(x) {
				x.ask(path.method, path.path, path.body, as)
			}
		}},
		{name: "impersonation: it is seen as a session, does not last, and the person ends it", want: endsHarmless, changes: []string{"victim/sessions"}, try: func(x *attempt) {
			as := impersonate(x)
			x.ready()
			require.Equal(x.t, http.StatusOK, x.ask(http.MethodGet, records("users", x.victim.Id), nil, as).Status, "it is the person's")
			// It is not renewed.
			res := x.post("auth-refresh", nil, as)
			claims, _ := accounts.ReadClaims(as)
			again, _ := accounts.ReadClaims(fmt.Sprint(res.JSON(x.t)["token"]))
			require.Equal(x.t, claims.Expires(), again.Expires())
			require.WithinDuration(x.t, time.Now().Add(600*time.Second), claims.Expires(), time.Minute)

			seen := list(x.t, x.App, records(accounts.CollectionSessions)+"?filter=(kind='impersonation')", x.victimToken)
			require.Len(x.t, seen, 1)
			require.Equal(x.t, sessionID(x.t, as), seen[0]["id"])
			require.Empty(x.t, list(x.t, x.App, records(accounts.CollectionSessions)+"?filter=(kind='impersonation')", x.attackerToken))
			require.Equal(x.t, http.StatusNoContent, x.ask(http.MethodDelete, records(accounts.CollectionSessions, sessionID(x.t, as)), nil, x.victimToken).Status)
			require.Equal(x.t, http.StatusUnauthorized, x.ask(http.MethodGet, records("users", x.victim.Id), nil, as).Status)
			require.Equal(x.t, http.StatusOK, x.ask(http.MethodGet, records("users", x.victim.Id), nil, x.victimToken).Status, "the person goes on")
		}},
	}
}

type attackedRoute struct {
	method, path string
	body         any
}

// superuserRoutes are such as would do damage.
func superuserRoutes(x *attempt) []attackedRoute {
	email := map[string]any{"email": x.attacker.Email(), "password": pbtest.Password, "passwordConfirm": pbtest.Password}
	return []attackedRoute{
		{http.MethodGet, "/api/settings", nil}, {http.MethodPatch, "/api/settings", map[string]any{"meta": map[string]any{"appName": "Taken"}}},
		{http.MethodGet, "/api/collections", nil}, {http.MethodPatch, "/api/collections/users", map[string]any{"listRule": ""}}, {http.MethodDelete, "/api/collections/members", nil},
		{http.MethodPut, "/api/collections/import", map[string]any{"collections": []any{}, "deleteMissing": true}},
		{http.MethodPost, "/api/sql", map[string]any{"query": "DELETE FROM users"}}, {http.MethodPost, "/api/backups", map[string]any{"name": "x.zip"}}, {http.MethodGet, "/api/logs", nil},
		{http.MethodGet, records("_superusers"), nil}, {http.MethodGet, records("notifications"), nil}, {http.MethodPatch, records("notification_topics", "x"), map[string]any{"open": true}},
		{http.MethodGet, "/api/accounts/users/" + x.victim.Id + "/export", nil}, {http.MethodPost, "/api/accounts/users/" + x.victim.Id + "/erase", nil},
		{http.MethodPost, "/api/notifications/x/retry", nil}, {http.MethodPost, "/api/collections/users/impersonate/" + x.victim.Id, nil},
		{http.MethodPatch, records("_superusers", must(x.FindAuthRecordByEmail("_superusers", "root@example.com")).Id), email},
	}
}

// ownerRoutes are what somebody who is signed in does about themselves.
func ownerRoutes(x *attempt) (routes []attackedRoute) {
	for collection := range takeoverOwner {
		one := records(collection, x.theirs[collection].Id)
		routes = append(routes, attackedRoute{http.MethodGet, records(collection), nil}, attackedRoute{http.MethodGet, one, nil},
			attackedRoute{http.MethodPatch, one, map[string]any{"model": "x", "enabled": false, "readAt": "2026-01-01 00:00:00Z"}}, attackedRoute{http.MethodDelete, one, nil})
	}
	return append(routes,
		attackedRoute{http.MethodPatch, records("users", x.victim.Id), map[string]any{"name": "x"}}, attackedRoute{http.MethodDelete, records("users", x.victim.Id), nil},
		attackedRoute{http.MethodPost, devicesPath, android("stolen")}, attackedRoute{http.MethodPost, records(notifications.CollectionPreferences), map[string]any{"channel": "sms"}},
		attackedRoute{http.MethodPost, "/api/logout", nil}, attackedRoute{http.MethodDelete, "/api/account", nil}, attackedRoute{http.MethodGet, "/api/account/export", nil},
		attackedRoute{http.MethodPost, "/api/collections/users/auth-refresh", nil}, attackedRoute{http.MethodPost, "/api/files/token", nil},
		attackedRoute{http.MethodPost, "/api/collections/users/request-email-change", map[string]any{"newEmail": "new@example.com"}},
		attackedRoute{http.MethodPost, "/api/collections/users/request-phone-verification", map[string]any{"phone": "+447700900001"}},
		attackedRoute{http.MethodPost, "/api/collections/users/confirm-phone-verification", map[string]any{"otpId": "abcdefghijklmno", "code": "000000"}})
}

// Tokens that are not worth anything: 401 where it matters who asks, nobody's
// elsewhere.
func takeoversByTokens() (rows []takeover) {
	sign := func(x *attempt, r *core.Record, claims map[string]any, key string, life time.Duration) string {
		all := map[string]any{"type": "auth", "id": r.Id, "collectionId": r.Collection().Id, "refreshable": true}
		maps.Copy(all, claims)
		return must(security.NewJWT(all, key, life))
	}
	key := func(r *core.Record) string { return r.TokenKey() + r.Collection().AuthToken.Secret }
	kinds := []struct {
		name string
		make func(x *attempt, whose *core.Record) string
	}{
		{"forged with a wrong key", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, nil, strings.Repeat("k", 80), time.Hour)
		}},
		{"forged with the attacker's key", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, nil, key(x.attacker), time.Hour)
		}},
		{"forged with an empty key", func(x *attempt, whose *core.Record) string { return signedBy("HS256", whose, "") }},
		{"with the algorithm none", func(x *attempt, whose *core.Record) string { return signedBy("none", whose, "") }},
		{"with the algorithm none, and signed", func(x *attempt, whose *core.Record) string { return signedBy("none", whose, key(whose)) }},
		{"with another algorithm and the right key", func(x *attempt, whose *core.Record) string { return signedBy("HS512", whose, key(whose)) }},
		{"without a signature", func(x *attempt, whose *core.Record) string {
			token := sign(x, whose, nil, key(whose), time.Hour)
			return token[:strings.LastIndex(token, ".")+1]
		}},
		{"of the attacker with other claims", func(x *attempt, whose *core.Record) string {
			parts := strings.Split(x.attackerToken, ".")
			return parts[0] + "." + strings.Split(sign(x, whose, nil, key(whose), time.Hour), ".")[1] + "." + parts[2]
		}},
		{"of another collection", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, map[string]any{"collectionId": "members"}, key(whose), time.Hour)
		}},
		{"of another collection, by its secret", func(x *attempt, whose *core.Record) string {
			members := must(x.FindCachedCollectionByNameOrId("members"))
			return sign(x, whose, nil, whose.TokenKey()+members.AuthToken.Secret, time.Hour)
		}},
		{"malformed", func(*attempt, *core.Record) string { return "not-a-token" }},
		{"cut in half", func(x *attempt, whose *core.Record) string {
			token := sign(x, whose, nil, key(whose), time.Hour)
			return token[:len(token)/2]
		}},
		{"expired", func(x *attempt, whose *core.Record) string { return sign(x, whose, nil, key(whose), -time.Minute) }},
		{"for files", func(x *attempt, whose *core.Record) string { return must(whose.NewFileToken()) }},
		{"for a new password", func(x *attempt, whose *core.Record) string { return must(whose.NewPasswordResetToken()) }},
		{"to verify an address", func(x *attempt, whose *core.Record) string { return must(whose.NewVerificationToken()) }},
		{"for another address", func(x *attempt, whose *core.Record) string { return must(whose.NewEmailChangeToken("new@example.com")) }},
		{"of a type that is not", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, map[string]any{"type": "superuser"}, key(whose), time.Hour)
		}},
		{"of another type, by the key for sign-ins", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, map[string]any{"type": "passwordReset"}, key(whose), time.Hour)
		}},
		{"of the attacker's session", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, map[string]any{"sid": sessionID(x.t, x.attackerToken)}, key(whose), time.Hour)
		}},
		{"of nobody", func(x *attempt, whose *core.Record) string {
			return sign(x, whose, map[string]any{"id": "nobody000000000"}, key(whose), time.Hour)
		}},
	}
	for _, kind := range kinds {
		rows = append(rows,
			takeover{name: "tokens: " + kind.name, want: endsRefused, try: func(x *attempt) {
				root := must(x.FindAuthRecordByEmail("_superusers", "root@example.com"))
				for whose, routes := range map[*core.Record][]attackedRoute{root: superuserRoutes(x), x.victim: ownerRoutes(x)} {
					token := kind.make(x, whose)
					for _, route := range routes {
						for _, sent := range []string{token, "Bearer " + token} {
							res := x.ask(route.method, route.path, route.body, sent)
							require.Equal(x.t, http.StatusUnauthorized, res.Status, "%s %s: %s", route.method, route.path, res)
						}
					}
					for _, route := range ownerRoutes(x) {
						if route.method == http.MethodGet || !strings.HasPrefix(route.path, "/api/collections/") || !strings.Contains(route.path, "/records") {
							continue
						}
						body := route.body
						if body == nil {
							body = map[string]any{}
						}
						res := x.batch(token, map[string]any{"method": route.method, "url": route.path, "body": body})
						require.Equal(x.t, http.StatusUnauthorized, res.Status, "a batch with %s %s: %s", route.method, route.path, res)
					}
				}
			}},
			takeover{name: "tokens on what is for everybody: " + kind.name, want: endsHarmless, try: func(x *attempt) {
				root := must(x.FindAuthRecordByEmail("_superusers", "root@example.com"))
				for _, whose := range []*core.Record{root, x.victim} {
					token := kind.make(x, whose)
					for _, path := range []string{"/api/health", "/api/notifications/webpush-key", "/api/collections/users/auth-methods"} {
						guest, res := x.Send(http.MethodGet, path, nil, ""), x.ask(http.MethodGet, path, nil, token)
						require.Equal(x.t, guest.String(), res.String(), "the answer of a guest")
					}
					// What a superuser could set at sign-up, a guest cannot.
					email := fmt.Sprintf("up-%s-%s", whose.Id, x.attacker.Email())
					res := x.ask(http.MethodPost, records("users"), map[string]any{"email": email, "password": pbtest.Password, "passwordConfirm": pbtest.Password, "phone": "+447700900001", "phoneVerified": true}, token)
					require.Equal(x.t, http.StatusOK, res.Status, res.String())
					require.Empty(x.t, must(x.FindAuthRecordByEmail("users", email)).GetString("phone"))
				}
			}})
	}
	return rows
}

// signedBy makes a token by hand, such as PocketBase would never make.
func signedBy(algorithm string, whose *core.Record, key string) string {
	part := func(v map[string]any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))) }
	text := part(map[string]any{"alg": algorithm, "typ": "JWT"}) + "." + part(map[string]any{"type": "auth", "id": whose.Id, "collectionId": whose.Collection().Id,
		"refreshable": true, "exp": time.Now().Add(time.Hour).Unix()})
	hash := sha256.New
	if algorithm == "HS512" {
		hash = sha512.New
	}
	if algorithm == "none" && key == "" {
		return text + "."
	}
	mac := hmac.New(hash, []byte(key))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
