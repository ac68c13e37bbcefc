package fcm

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"
)

const (
	// scope lets a token send messages and do nothing else in the project.
	scope = "https://www.googleapis.com/auth/firebase.messaging"

	tokenTimeout = 15 * time.Second

	// A token is replaced in the background from refreshBefore its end on, and is
	// not used any more from spareBefore on: a message may be under way for a
	// while, and clocks differ.
	refreshBefore = 5 * time.Minute
	spareBefore   = 30 * time.Second

	// refreshPause is between two attempts to replace a token that still works.
	refreshPause = 30 * time.Second
)

// tokens hands out the service account's access token. The oauth2 package's own
// source would do, but for two things: whoever waits for it cannot be called off,
// and once an hour every message would stand still until the new token is there.
type tokens struct {
	config *jwt.Config
	base   http.RoundTripper
	ctx    context.Context // of the provider: ends fetches
	now    func() time.Time

	mu        sync.Mutex
	current   *oauth2.Token
	fetchedAt time.Time
	triedAt   time.Time
	fetching  *fetch // nil: none is under way
}

// fetch is one request for a token, shared by all who wait for it.
type fetch struct {
	done  chan struct{}
	token *oauth2.Token
	at    time.Time
	err   *tokenError
}

// tokenError is why there is no token. Exactly one of response and err is set.
type tokenError struct {
	response *oauth2.RetrieveError // the server refused
	err      error                 // no answer, or none that can be read
	answered bool                  // err is about an answer
}

func (e *tokenError) Error() string {
	if e.response != nil {
		return e.response.Error()
	}
	return e.err.Error()
}

func (e *tokenError) Unwrap() error {
	if e.response != nil {
		return e.response
	}
	return e.err
}

// get returns a token and since when it is held. The error is a [*tokenError],
// or ctx's.
func (t *tokens) get(ctx context.Context) (*oauth2.Token, time.Time, error) {
	t.mu.Lock()
	now := t.now()
	if t.current != nil && now.Before(t.current.Expiry.Add(-spareBefore)) {
		token, at := t.current, t.fetchedAt
		if now.After(token.Expiry.Add(-refreshBefore)) && t.fetching == nil && now.Sub(t.triedAt) >= refreshPause {
			t.start(now)
		}
		t.mu.Unlock()
		return token, at, nil
	}
	if t.fetching == nil {
		t.start(now)
	}
	f := t.fetching
	t.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, time.Time{}, ctx.Err()
	}
	if f.err != nil {
		return nil, time.Time{}, f.err
	}
	return f.token, f.at, nil
}

// drop forgets a token that Google does not accept any more.
func (t *tokens) drop(token *oauth2.Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == token {
		t.current = nil
	}
}

// start begins a fetch. The caller holds mu.
func (t *tokens) start(now time.Time) {
	f := &fetch{done: make(chan struct{})}
	t.fetching, t.triedAt = f, now
	go func() {
		f.token, f.err = t.fetch()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.fetching = nil
		if f.err == nil {
			f.at = t.now()
			t.current, t.fetchedAt = f.token, f.at
		}
		close(f.done)
	}()
}

func (t *tokens) fetch() (*oauth2.Token, *tokenError) {
	ctx, cancel := context.WithTimeout(t.ctx, tokenTimeout)
	defer cancel()
	wire := &tokenWire{base: t.base, ctx: ctx}
	client := &http.Client{Transport: wire, CheckRedirect: noRedirect}
	token, err := t.config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token()
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused):
		return nil, &tokenError{response: refused}
	case wire.err != nil:
		return nil, &tokenError{err: wire.err} // err itself has lost its type
	case err != nil:
		return nil, &tokenError{err: err, answered: true}
	case token.AccessToken == "" || token.Expiry.IsZero():
		return nil, &tokenError{err: errors.New("the answer holds no token, or not for how long"), answered: true}
	}
	// Without its monotonic part the time goes on while the machine sleeps, as it
	// does at Google.
	token.Expiry = token.Expiry.Round(0)
	return token, nil
}

// tokenWire gives the request a context, which package jwt does not, and keeps
// the error, of which it keeps only the text.
type tokenWire struct {
	base http.RoundTripper
	ctx  context.Context
	err  error
}

// RoundTrip implements [http.RoundTripper].
func (w *tokenWire) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.base.RoundTrip(req.WithContext(w.ctx))
	w.err = err
	return resp, err
}

// noRedirect keeps tokens and signatures from following an answer to elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
