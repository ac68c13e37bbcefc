package hooks_test

import (
	"database/sql"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
	"github.com/pocketbase/pocketbase/tools/security"
	"github.com/stretchr/testify/require"

	"github.com/groundworkhq/groundwork/hooks"
	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/pbtest"
)

const sessionsPath = "/api/collections/sessions/records"

// signIn signs r in with its password, as an app does.
func signIn(t testing.TB, app *pbtest.App, r *core.Record) string {
	t.Helper()
	res := app.Send(http.MethodPost, "/api/collections/"+r.Collection().Name+"/auth-with-password",
		map[string]any{"identity": r.Email(), "password": pbtest.Password}, "")
	require.Equal(t, http.StatusOK, res.Status, res)
	return res.JSON(t)["token"].(string)
}

func sessionID(t testing.TB, token string) string {
	t.Helper()
	claims, ok := accounts.ReadClaims(token)
	require.True(t, ok)
	return claims.Session
}

// list returns the records of a list answer.
func list(t testing.TB, app *pbtest.App, path, token string) []map[string]any {
	t.Helper()
	res := app.Send(http.MethodGet, path, nil, token)
	require.Equal(t, http.StatusOK, res.Status, res)
	items := []map[string]any{}
	for _, item := range res.JSON(t)["items"].([]any) {
		items = append(items, item.(map[string]any))
	}
	return items
}

func TestSignInMakesASession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	for _, who := range []*core.Record{app.User("ana@example.com"), app.Superuser("root@example.com")} {
		first, second := signIn(t, app, who), signIn(t, app, who)
		mine := sessionsPath + "?filter=(recordRef='" + who.Id + "')" // a superuser sees everybody's
		rows := list(t, app, mine, first)
		require.Len(t, rows, 2)
		require.Equal(t, "sign_in", rows[0]["kind"])

		res := app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, second), nil, first)
		require.Equal(t, http.StatusNoContent, res.Status, res)
		res = app.Send(http.MethodGet, sessionsPath, nil, second)
		require.Equal(t, http.StatusUnauthorized, res.Status, res)
		require.Len(t, list(t, app, mine, first), 1)
	}
}

// sessionRow is the session of a token as it is stored; nil when it is gone.
func sessionRow(t testing.TB, app *pbtest.App, token string) *core.Record {
	t.Helper()
	r, err := app.FindRecordById(accounts.CollectionSessions, sessionID(t, token))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	require.NoError(t, err)
	return r
}

func requireStatus(t testing.TB, want int, res pbtest.Response, about ...any) {
	t.Helper()
	require.Equal(t, want, res.Status, append([]any{res}, about...)...)
}

func sessionCount(t testing.TB, app *pbtest.App) int {
	t.Helper()
	n, err := app.CountRecords(accounts.CollectionSessions)
	require.NoError(t, err)
	return int(n)
}

func TestWhatASessionHolds(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	req := httptest.NewRequest(http.MethodPost, "/api/collections/users/auth-with-password",
		strings.NewReader(`{"identity":"ana@example.com","password":"`+pbtest.Password+`"}`))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\x00\xff")
	rec := httptest.NewRecorder()
	app.Handler().ServeHTTP(rec, req)
	require.Equal(t, http.StatusOK, rec.Code, rec.Body)
	token := pbtest.Response{Body: rec.Body.Bytes()}.JSON(t)["token"].(string)

	row := sessionRow(t, app, token)
	claims, _ := accounts.ReadClaims(token)
	require.Equal(t, "Chrome on macOS", row.GetString("name"))
	require.Equal(t, "sign_in", row.GetString("kind"))
	require.Equal(t, []string{"_pb_users_auth_", ana.Id, "192.0.2.1"}, []string{row.GetString("collectionRef"), row.GetString("recordRef"), row.GetString("ip")})
	require.Contains(t, row.GetString("userAgent"), "Chrome/140.0.0.0")
	require.Equal(t, claims.Expires().Unix(), row.GetDateTime("expiresAt").Time().Unix())

	// PocketBase's own code reads the token.
	found, err := app.FindAuthRecordByToken(token, core.TokenTypeAuth)
	require.NoError(t, err)
	require.Equal(t, ana.Id, found.Id)
	all, err := security.ParseUnverifiedJWT(token)
	require.NoError(t, err)
	keys := slices.Sorted(maps.Keys(all))
	require.Equal(t, []string{"collectionId", "exp", "id", "refreshable", "sid", "type"}, keys, "PocketBase's claims and one of ours")
	require.Equal(t, true, all["refreshable"])
}

// Whatever way somebody signs in.
func TestEveryWayToSignIn(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.POST("/own", func(e *core.RequestEvent) error {
			r, err := e.App.FindAuthRecordByEmail("users", "ana@example.com")
			if err != nil {
				return err
			}
			return apis.RecordAuthResponse(e, r, "", nil)
		})
		return e.Next()
	})
	ana, root := app.User("ana@example.com"), app.Superuser("root@example.com")
	users := ana.Collection()
	users.OTP.Enabled = true
	require.NoError(t, app.Save(users))
	rootToken := signIn(t, app, root)

	otp := core.NewOTP(app)
	otp.SetCollectionRef(users.Id)
	otp.SetRecordRef(ana.Id)
	otp.SetPassword("123456")
	require.NoError(t, app.Save(otp))

	for _, tc := range []struct {
		path, as string
		body     any
		kind     string
	}{
		{"/api/collections/users/auth-with-password", "", map[string]any{"identity": "ana@example.com", "password": pbtest.Password}, "sign_in"},
		{"/api/collections/users/auth-with-otp", "", map[string]any{"otpId": otp.Id, "password": "123456"}, "sign_in"},
		{"/api/collections/users/impersonate/" + ana.Id, rootToken, map[string]any{"duration": 60}, "impersonation"},
		{"/own", "", nil, "sign_in"},
	} {
		res := app.Send(http.MethodPost, tc.path, tc.body, tc.as)
		requireStatus(t, http.StatusOK, res, tc.path)
		token := res.JSON(t)["token"].(string)
		row := sessionRow(t, app, token)
		require.NotNil(t, row, tc.path)
		require.Equal(t, tc.kind, row.GetString("kind"), tc.path)
		require.Equal(t, ana.Id, row.GetString("recordRef"), tc.path)
		requireStatus(t, http.StatusOK, app.Send(http.MethodGet, sessionsPath, nil, token), tc.path)
		requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/logout", nil, token), tc.path)
		requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodGet, sessionsPath, nil, token), tc.path)
		requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodPost, "/api/logout", nil, token), tc.path)
	}
}

func TestSetupLinkIsASession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	link, err := hooks.SetupLink(app, "")
	require.NoError(t, err)
	token := link[strings.LastIndex(link, "/")+1:]
	row := sessionRow(t, app, token)
	require.Equal(t, "setup", row.GetString("kind"))
	require.WithinDuration(t, time.Now().Add(30*time.Minute), row.GetDateTime("expiresAt").Time(), time.Minute)
	requireStatus(t, http.StatusOK, app.Send(http.MethodGet, "/api/settings", nil, token))

	// A link that got into the wrong hands.
	require.NoError(t, app.Delete(row))
	requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodGet, "/api/settings", nil, token))

	// With the first superuser all links end.
	link, err = hooks.SetupLink(app, "")
	require.NoError(t, err)
	require.Equal(t, 1, sessionCount(t, app))
	app.Superuser("root@example.com")
	require.Equal(t, 0, sessionCount(t, app), link)
}

// With two factors the first one alone is no sign-in.
func TestFirstFactorMakesNoSession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	users := ana.Collection()
	users.OTP.Enabled, users.MFA.Enabled = true, true
	require.NoError(t, app.Save(users))

	made := 0
	app.OnRecordCreate("sessions").BindFunc(func(e *core.RecordEvent) error {
		made++
		return e.Next()
	})
	body := map[string]any{"identity": "ana@example.com", "password": pbtest.Password}
	res := app.Send(http.MethodPost, "/api/collections/users/auth-with-password", body, "")
	requireStatus(t, http.StatusUnauthorized, res)
	mfaID := res.JSON(t)["mfaId"].(string)
	require.Zero(t, made, "not even for a moment")

	otp := core.NewOTP(app)
	otp.SetCollectionRef(users.Id)
	otp.SetRecordRef(ana.Id)
	otp.SetPassword("123456")
	require.NoError(t, app.Save(otp))
	res = app.Send(http.MethodPost, "/api/collections/users/auth-with-otp", map[string]any{"otpId": otp.Id, "password": "123456", "mfaId": mfaID}, "")
	requireStatus(t, http.StatusOK, res)
	require.Equal(t, 1, sessionCount(t, app))
	require.NotNil(t, sessionRow(t, app, res.JSON(t)["token"].(string)))
}

func TestRefreshKeepsTheSession(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	ana := app.User("ana@example.com")
	token := signIn(t, app, ana)
	_, err := app.DB().NewQuery("UPDATE sessions SET expiresAt = '2099-01-01 00:00:00.000Z'").Execute()
	require.NoError(t, err)

	refresh := func(token string) pbtest.Response {
		return app.Send(http.MethodPost, "/api/collections/users/auth-refresh", nil, token)
	}
	for range 2 {
		res := refresh(token)
		requireStatus(t, http.StatusOK, res)
		next := res.JSON(t)["token"].(string)
		require.Equal(t, sessionID(t, token), sessionID(t, next))
		token = next
	}
	require.Equal(t, 1, sessionCount(t, app))
	claims, _ := accounts.ReadClaims(token)
	require.Equal(t, claims.Expires().Unix(), sessionRow(t, app, token).GetDateTime("expiresAt").Time().Unix(), "it moves along")

	// An impersonation stays one, and its token is the same.
	res := app.Send(http.MethodPost, "/api/collections/users/impersonate/"+ana.Id, map[string]any{"duration": 60}, signIn(t, app, app.Superuser("root@example.com")))
	impersonation := res.JSON(t)["token"].(string)
	require.Equal(t, impersonation, refresh(impersonation).JSON(t)["token"])
	require.Equal(t, "impersonation", sessionRow(t, app, impersonation).GetString("kind"))

	// A token without a session gets one.
	before := sessionCount(t, app)
	res = refresh(app.Token(ana))
	requireStatus(t, http.StatusOK, res)
	require.NotNil(t, sessionRow(t, app, res.JSON(t)["token"].(string)))
	require.Equal(t, before+1, sessionCount(t, app))

	// One that cannot be refreshed stays what it is.
	static, err := ana.NewStaticAuthToken(time.Hour)
	require.NoError(t, err)
	require.Equal(t, static, refresh(static).JSON(t)["token"])

	app.Send(http.MethodPost, "/api/logout", nil, token)
	requireStatus(t, http.StatusUnauthorized, refresh(token))
}

// The application's own hooks on a sign-in.
func TestSignInWithTheApplicationsHooks(t *testing.T) {
	t.Parallel()
	body := map[string]any{"identity": "ana@example.com", "password": pbtest.Password}
	const path = "/api/collections/users/auth-with-password"

	t.Run("sees the token that is sent", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnRecordAuthRequest("users").BindFunc(func(e *core.RecordAuthRequestEvent) error {
			e.Response.Header().Set("X-Token", e.Token)
			return e.Next()
		})
		app.User("ana@example.com")
		res := app.Send(http.MethodPost, path, body, "")
		require.Equal(t, res.JSON(t)["token"], res.Header.Get("X-Token"))
	})
	t.Run("puts another token in its place", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnRecordAuthRequest("users").BindFunc(func(e *core.RecordAuthRequestEvent) (err error) {
			e.Token, err = e.Record.NewStaticAuthToken(time.Minute)
			require.NoError(t, err)
			return e.Next()
		})
		app.User("ana@example.com")
		row := sessionRow(t, app, app.Send(http.MethodPost, path, body, "").JSON(t)["token"].(string))
		require.WithinDuration(t, time.Now().Add(time.Minute), row.GetDateTime("expiresAt").Time(), 30*time.Second)
	})
	t.Run("answers by itself", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnRecordAuthRequest("users").BindFunc(func(e *core.RecordAuthRequestEvent) error {
			return e.JSON(http.StatusOK, map[string]any{"token": e.Token})
		})
		app.User("ana@example.com")
		res := app.Send(http.MethodPost, path, body, "")
		require.Len(t, list(t, app, sessionsPath, res.JSON(t)["token"].(string)), 1)
	})
	t.Run("refuses", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnRecordAuthRequest("users").BindFunc(func(e *core.RecordAuthRequestEvent) error {
			return e.ForbiddenError("No.", nil)
		})
		app.User("ana@example.com")
		requireStatus(t, http.StatusForbidden, app.Send(http.MethodPost, path, body, ""))
		require.Equal(t, 0, sessionCount(t, app))
	})
	t.Run("changes the password meanwhile", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnRecordAuthRequest("users").BindFunc(func(e *core.RecordAuthRequestEvent) error {
			ana := app.Reload(e.Record)
			ana.SetPassword("another-password")
			require.NoError(t, app.Save(ana))
			return e.Next()
		})
		app.User("ana@example.com")
		requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodPost, path, body, ""))
		require.Equal(t, 0, sessionCount(t, app))
	})
	t.Run("fails after the session was stored", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnRecordEnrich("users").Bind(&hook.Handler[*core.RecordEnrichEvent]{Priority: 99999, Func: func(*core.RecordEnrichEvent) error {
			return apis.NewBadRequestError("No.", nil)
		}})
		app.User("ana@example.com")
		requireStatus(t, http.StatusBadRequest, app.Send(http.MethodPost, path, body, ""))
		require.Equal(t, 0, sessionCount(t, app))
	})
	t.Run("signs in within a transaction that is rolled back", func(t *testing.T) {
		t.Parallel()
		app := pbtest.NewApp(t)
		app.OnServe().BindFunc(func(e *core.ServeEvent) error {
			e.Router.POST("/own", func(e *core.RequestEvent) error {
				return e.App.RunInTransaction(func(txApp core.App) error {
					outer := e.App
					e.App = txApp
					defer func() { e.App = outer }()
					r, err := txApp.FindAuthRecordByEmail("users", "ana@example.com")
					require.NoError(t, err)
					require.NoError(t, apis.RecordAuthResponse(e, r, "password", nil))
					return apis.NewBadRequestError("No.", nil)
				})
			})
			return e.Next()
		})
		app.User("ana@example.com")
		requireStatus(t, http.StatusBadRequest, app.Send(http.MethodPost, "/own", nil, ""))
		require.Equal(t, 0, sessionCount(t, app))
	})
}

// Nobody but the server writes a session: not a superuser, not Go code, not a
// batch.
func TestSessionsAreNotWritten(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Settings().Batch.Enabled, app.Settings().Batch.MaxRequests, app.Settings().Batch.Timeout = true, 10, 120
	ana, ben, root := app.User("ana@example.com"), app.User("ben@example.com"), app.Superuser("root@example.com")
	token := signIn(t, app, ana)
	row := sessionRow(t, app, token)

	row.Set("recordRef", ben.Id)
	require.Error(t, app.Save(row))
	forged := core.NewRecord(row.Collection())
	forged.Load(map[string]any{"collectionRef": ben.Collection().Id, "recordRef": ben.Id, "kind": "sign_in"})
	require.Error(t, app.Save(forged))
	for _, who := range []string{token, signIn(t, app, root)} {
		for method, path := range map[string]string{http.MethodPost: sessionsPath, http.MethodPatch: sessionsPath + "/" + row.Id} {
			requireStatus(t, http.StatusForbidden, app.Send(method, path, map[string]any{"recordRef": ben.Id, "expiresAt": "2099-01-01"}, who))
			res := app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []any{map[string]any{"method": method, "url": path, "body": map[string]any{"recordRef": ben.Id}}}}, who)
			requireStatus(t, http.StatusBadRequest, res)
		}
	}
	require.Equal(t, ana.Id, app.Reload(row).GetString("recordRef"))
	require.Equal(t, 2, sessionCount(t, app))
}

// Everything that ends a session, and who goes on.
func TestWhatEndsASession(t *testing.T) {
	t.Parallel()
	newPassword := func(t *testing.T, _ *pbtest.App, ana *core.Record) {
		ana.SetPassword("another-password")
	}
	for name, tc := range map[string]struct {
		end       func(t *testing.T, app *pbtest.App, ana *core.Record, victim, other string)
		otherEnds bool
	}{
		"the owner deletes it": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, other string) {
			requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, victim), nil, other))
		}},
		"a superuser deletes it": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, _ string) {
			requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, sessionsPath+"/"+sessionID(t, victim), nil, signIn(t, app, app.Superuser("root@example.com"))))
		}},
		"Go code deletes it": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, _ string) {
			require.NoError(t, app.Delete(sessionRow(t, app, victim)))
		}},
		"a batch deletes it": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, other string) {
			app.Settings().Batch.Enabled, app.Settings().Batch.MaxRequests, app.Settings().Batch.Timeout = true, 10, 120
			res := app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []any{map[string]any{"method": "DELETE", "url": sessionsPath + "/" + sessionID(t, victim)}}}, other)
			requireStatus(t, http.StatusOK, res)
		}},
		"it logs out": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, _ string) {
			requireStatus(t, http.StatusNoContent, app.Send(http.MethodPost, "/api/logout", nil, victim))
		}},
		"raw SQL in the dashboard": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, _ string) {
			res := app.Send(http.MethodPost, "/api/sql", map[string]any{"query": "DELETE FROM sessions WHERE id = '" + sessionID(t, victim) + "'"}, signIn(t, app, app.Superuser("root@example.com")))
			requireStatus(t, http.StatusOK, res)
		}},
		"raw SQL behind everybody's back, at the next flush": {end: func(t *testing.T, app *pbtest.App, _ *core.Record, victim, _ string) {
			_, err := app.DB().NewQuery("DELETE FROM sessions WHERE id = '" + sessionID(t, victim) + "'").Execute()
			require.NoError(t, err)
			require.NoError(t, accounts.Of(app).Flush(t.Context()))
		}},
		"a new password": {otherEnds: true, end: func(t *testing.T, app *pbtest.App, ana *core.Record, _, _ string) {
			ana = app.Reload(ana)
			newPassword(t, app, ana)
			require.NoError(t, app.Save(ana))
		}},
		"a new address": {otherEnds: true, end: func(t *testing.T, app *pbtest.App, ana *core.Record, _, _ string) {
			ana = app.Reload(ana)
			ana.SetEmail("new@example.com")
			require.NoError(t, app.Save(ana))
		}},
		"a new tokenKey": {otherEnds: true, end: func(t *testing.T, app *pbtest.App, ana *core.Record, _, _ string) {
			ana = app.Reload(ana)
			ana.RefreshTokenKey()
			require.NoError(t, app.Save(ana))
		}},
		"the account is deleted": {otherEnds: true, end: func(t *testing.T, app *pbtest.App, ana *core.Record, _, other string) {
			requireStatus(t, http.StatusNoContent, app.Send(http.MethodDelete, "/api/collections/users/records/"+ana.Id, nil, other))
		}},
		"a new secret of the collection": {otherEnds: true, end: func(t *testing.T, app *pbtest.App, ana *core.Record, _, _ string) {
			users, err := app.FindCollectionByNameOrId(ana.Collection().Id)
			require.NoError(t, err)
			users.AuthToken.Secret = security.RandomString(50)
			require.NoError(t, app.Save(users))
		}},
		"the dashboard empties the collection": {otherEnds: true, end: func(t *testing.T, app *pbtest.App, _ *core.Record, _, _ string) {
			sessions, err := app.FindCollectionByNameOrId(accounts.CollectionSessions)
			require.NoError(t, err)
			require.NoError(t, app.TruncateCollection(sessions))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := pbtest.NewApp(t)
			ana, ben := app.User("ana@example.com"), app.User("ben@example.com")
			victim, other, third := signIn(t, app, ana), signIn(t, app, ana), signIn(t, app, ben)
			for _, token := range []string{victim, other, third} { // so that they are in memory
				requireStatus(t, http.StatusOK, app.Send(http.MethodGet, sessionsPath, nil, token))
			}
			tc.end(t, app, ana, victim, other)

			requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodGet, sessionsPath, nil, victim))
			require.Nil(t, sessionRow(t, app, victim))
			if tc.otherEnds {
				requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodGet, sessionsPath, nil, other))
				require.Nil(t, sessionRow(t, app, other))
			} else {
				require.Len(t, list(t, app, sessionsPath, other), 1)
			}
			if name != "a new secret of the collection" && name != "the dashboard empties the collection" {
				require.Len(t, list(t, app, sessionsPath, third), 1)
			}
		})
	}
}

// A deletion that is rolled back has not happened.
func TestSessionGoesOnAfterARollback(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Settings().Batch.Enabled, app.Settings().Batch.MaxRequests, app.Settings().Batch.Timeout = true, 10, 120
	ana := app.User("ana@example.com")
	token := signIn(t, app, ana)
	device := app.Send(http.MethodPost, "/api/collections/devices/records", map[string]any{"platform": "android", "token": "a"}, token)
	requireStatus(t, http.StatusOK, device)

	err := app.RunInTransaction(func(txApp core.App) error {
		r, err := txApp.FindRecordById(accounts.CollectionSessions, sessionID(t, token))
		require.NoError(t, err)
		require.NoError(t, txApp.Delete(r))
		return errors.New("no")
	})
	require.Error(t, err)
	res := app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []any{
		map[string]any{"method": "DELETE", "url": sessionsPath + "/" + sessionID(t, token)},
		map[string]any{"method": "DELETE", "url": sessionsPath + "/000000000000000"},
	}}, token)
	requireStatus(t, http.StatusBadRequest, res)

	require.Len(t, list(t, app, sessionsPath, token), 1)
	require.Equal(t, "active", app.Reload(must(app.FindRecordById("devices", device.JSON(t)["id"].(string)))).GetString("status"))
	var logged int
	require.NoError(t, app.DB().Select("count(*)").From("groundwork_sessions_ended").Where(dbx.NewExp("seq > 1")).Row(&logged))
	require.Equal(t, 0, logged)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// One batch may end its own session: the rest of it may finish, nothing after it.
func TestSessionEndsItselfInABatch(t *testing.T) {
	t.Parallel()
	app := pbtest.NewApp(t)
	app.Settings().Batch.Enabled, app.Settings().Batch.MaxRequests, app.Settings().Batch.Timeout = true, 10, 120
	token := signIn(t, app, app.User("ana@example.com"))
	batch := map[string]any{"requests": []any{
		map[string]any{"method": "DELETE", "url": sessionsPath + "/" + sessionID(t, token)},
		map[string]any{"method": "POST", "url": "/api/collections/notification_preferences/records", "body": map[string]any{"channel": "push"}},
	}}
	requireStatus(t, http.StatusOK, app.Send(http.MethodPost, "/api/batch", batch, token))
	requireStatus(t, http.StatusUnauthorized, app.Send(http.MethodPost, "/api/batch", batch, token))

	// A device that is registered in the session of the same batch would go on
	// getting pushes.
	token = signIn(t, app, must(app.FindAuthRecordByEmail("users", "ana@example.com")))
	requireStatus(t, http.StatusBadRequest, app.Send(http.MethodPost, "/api/batch", map[string]any{"requests": []any{
		map[string]any{"method": "DELETE", "url": sessionsPath + "/" + sessionID(t, token)},
		map[string]any{"method": "POST", "url": "/api/collections/devices/records", "body": map[string]any{"platform": "android", "token": "a"}},
	}}, token))
	require.Len(t, list(t, app, sessionsPath, token), 1)
}
