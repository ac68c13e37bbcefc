package hooks

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	validation "github.com/pocketbase/ozzo-validation/v4"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"

	"github.com/groundworkhq/groundwork/internal/accounts"
)

const (
	// prioritySession is right after PocketBase has read the token, before anything
	// looks at who asks.
	prioritySession = apis.DefaultLoadAuthTokenMiddlewarePriority + 1

	// priorityRefuse is after the rate limits: who guesses tokens is slowed down as
	// any guest.
	priorityRefuse = apis.DefaultRateLimitMiddlewarePriority + 100
)

// What a request's store holds about its token.
const (
	holderKey   = "groundwork.sessions.holder"   // accounts.Holder of a good token
	badTokenKey = "groundwork.sessions.badToken" // badToken
)

// badToken is why a token does not count.
type badToken struct{ code, text string }

var (
	tokenMalformed = badToken{"token_malformed", "The Authorization header holds no token: send the one from the last sign-in, or none."}
	tokenExpired   = badToken{"token_expired", "The sign-in has expired: sign in again."}
	tokenInvalid   = badToken{"token_invalid", "The token is not valid here: sign in again."}
	tokenEnded     = badToken{"session_ended", "This device was signed out: sign in again."}
	tokenOld       = badToken{"session_required", "The token is from before sessions were required: sign in again."}
)

// bindBadTokens makes a token that does not count a 401, where PocketBase takes
// who sends it for a guest: an app would show empty lists instead of its sign-in
// page.
func (g *groundwork) bindBadTokens() {
	g.app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "groundwork.sessions.check", Priority: prioritySession, Func: g.checkSession})
		e.Router.Bind(&hook.Handler[*core.RequestEvent]{Id: "groundwork.badtokens.refuse", Priority: priorityRefuse, Func: refuseBadToken})
		return e.Next()
	})
}

// checkSession takes the sign-in from a request whose session has ended.
func (g *groundwork) checkSession(e *core.RequestEvent) error {
	if err := g.dropFileToken(e); err != nil {
		return err
	}
	token, ok := sentToken(e.Request)
	if !ok {
		return e.Next()
	}
	if e.Auth == nil {
		e.Set(badTokenKey, whyBad(token))
		return e.Next()
	}
	claims, ok := accounts.ReadClaims(token)
	if !ok || claims.ID != e.Auth.Id || claims.Collection != e.Auth.Collection().Id {
		return e.Next() // signed in by something else than this token
	}
	err := g.sessions.Check(claims.Holder())
	switch {
	case err == nil:
		e.Set(holderKey, claims.Holder())
	case errors.Is(err, accounts.ErrEnded):
		e.Auth = nil
		e.Set(badTokenKey, tokenEnded)
	case errors.Is(err, accounts.ErrWithoutSession):
		e.Auth = nil
		e.Set(badTokenKey, tokenOld)
	default:
		return e.InternalServerError("The sign-in cannot be checked right now; try again.", err)
	}
	return e.Next()
}

// dropFileToken takes a file token whose session has ended out of the address,
// for the files and for PocketBase's backups.
func (g *groundwork) dropFileToken(e *core.RequestEvent) error {
	raw := e.Request.URL.RawQuery
	if !strings.Contains(raw, "token") && !strings.Contains(raw, "%") {
		return nil
	}
	query := e.Request.URL.Query()
	claims, ok := accounts.ReadClaims(query.Get("token"))
	if !ok || claims.Type != core.TokenTypeFile || g.sessions.Knows(claims.Holder()) {
		return nil
	}
	// Only what PocketBase would take is looked up and remembered.
	if _, err := e.App.FindAuthRecordByToken(query.Get("token"), core.TokenTypeFile); err != nil {
		return nil
	}
	err := g.sessions.Check(claims.Holder())
	if errors.Is(err, accounts.ErrEnded) || errors.Is(err, accounts.ErrWithoutSession) {
		query.Del("token")
		e.Request.URL.RawQuery = query.Encode()
		return nil
	}
	if err != nil {
		return e.InternalServerError("The sign-in cannot be checked right now; try again.", err)
	}
	return nil
}

// sentToken returns the token of the Authorization header, bare or after Bearer,
// as PocketBase reads it. Another scheme is somebody else's, a proxy's or the
// application's.
func sentToken(r *http.Request) (string, bool) {
	header := strings.TrimSpace(r.Header.Get("Authorization"))
	scheme, rest, found := strings.Cut(header, " ")
	if !found {
		return header, header != "" && !strings.EqualFold(header, "Bearer")
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	rest = strings.TrimSpace(rest)
	return rest, rest != ""
}

// whyBad says why PocketBase did not take a token.
func whyBad(token string) badToken {
	claims, ok := accounts.ReadClaims(token)
	switch {
	case !ok:
		return tokenMalformed
	case claims.ExpiresUnix > 0 && !claims.Expires().After(time.Now()):
		return tokenExpired
	}
	return tokenInvalid
}

func refuseBadToken(e *core.RequestEvent) error {
	if bad, ok := e.Get(badTokenKey).(badToken); ok && !badTokenIsNone(e) {
		return e.UnauthorizedError(bad.text, validation.Errors{"token": validation.NewError(bad.code, bad.text)})
	}
	if e.Auth == nil && onlySuperusers(e) {
		return e.UnauthorizedError("Sign in as a superuser first.", nil)
	}
	return e.Next()
}

// badTokenIsNone reports whether a bad token counts as none for this request: the
// SDKs attach the one they hold to everything, also to what gets a new one.
func badTokenIsNone(e *core.RequestEvent) bool {
	path := e.Request.URL.Path
	for _, prefix := range []string{"/_/", "/api/files/", "/api/unsubscribe/", "/api/webhooks/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	if slices.Contains([]string{"/_", "/api/realtime", "/api/health", "/api/version-check", "/api/notifications/webpush-key"}, path) {
		return true
	}
	// The static files: they are the same for everybody.
	if strings.HasSuffix(e.Request.Pattern, " /{path...}") {
		return true
	}
	collection, action, ok := collectionPath(path)
	if !ok {
		return false
	}
	for _, prefix := range []string{"auth-", "request-", "confirm-"} {
		if strings.HasPrefix(action, prefix) {
			return true
		}
	}
	if action == "records" && e.Request.Method == http.MethodPost {
		c, err := e.App.FindCachedCollectionByNameOrId(collection)
		return err == nil && c.IsAuth()
	}
	return false
}

// collectionPath takes /api/collections/{collection}/{action} apart.
func collectionPath(path string) (collection, action string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/api/collections/")
	if !ok {
		return "", "", false
	}
	collection, action, ok = strings.Cut(rest, "/")
	return collection, action, ok
}

// onlySuperusers reports whether a request is about records of ours that no rule
// opens to anybody: PocketBase answers 403 there, also to somebody who has not
// signed in.
func onlySuperusers(e *core.RequestEvent) bool {
	name, action, ok := collectionPath(e.Request.URL.Path)
	if !ok {
		return false
	}
	action, id, one := strings.Cut(action, "/")
	if action != "records" || strings.Contains(id, "/") {
		return false
	}
	c, err := e.App.FindCachedCollectionByNameOrId(name)
	if err != nil || !slices.Contains(ourCollections, c.Id) {
		return false
	}
	switch e.Request.Method {
	case http.MethodGet, http.MethodHead:
		if one {
			return c.ViewRule == nil
		}
		return c.ListRule == nil
	case http.MethodPost:
		return !one && c.CreateRule == nil
	case http.MethodPatch:
		return one && c.UpdateRule == nil
	case http.MethodDelete:
		return one && c.DeleteRule == nil
	}
	return false
}
