package accounts

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// A row about somebody's refused request also says what they sent: the name of a
// file is nowhere else, so that no search for what is known of them finds it.
func TestLogRowsLoseTheDetailsOfARefusal(t *testing.T) {
	t.Parallel()
	found := newReplacer([]string{"nhwe4xv1b0q2x7t"})
	s := &Scrub{certain: found, replacer: found}
	data := map[string]any{"url": "/api/collections/users/records/nhwe4xv1b0q2x7t", "status": 400.0, "details": map[string]any{"avatar": "passport.png is no image"}}
	message, keep := s.LogRow("PATCH /api/collections/users/records/nhwe4xv1b0q2x7t", data)
	require.True(t, keep)
	require.Equal(t, "PATCH /api/collections/users/records/[erased]", message)
	require.Equal(t, map[string]any{"url": "/api/collections/users/records/[erased]", "status": 400.0}, data)

	other := map[string]any{"url": "/api/collections/users/records/abcdefghijklmno", "details": "passport.png is no image"}
	_, keep = s.LogRow("PATCH", other)
	require.True(t, keep)
	require.Len(t, other, 2)
}

// What the server itself writes stays, whatever somebody called themselves.
func TestLogRowsKeepTheServersWords(t *testing.T) {
	t.Parallel()
	s := &Scrub{certain: newReplacer([]string{"nhwe4xv1b0q2x7t"}), replacer: newReplacer([]string{"nhwe4xv1b0q2x7t", "request", "users", "/api/", "Mozilla"})}
	data := map[string]any{"type": "request", "auth": "users", "method": "GET", "url": "/api/collections/users/records/nhwe4xv1b0q2x7t?filter=users", "note": "users", "userAgent": "Mozilla/5.0", "status": 200.0}
	message, keep := s.LogRow("GET /api/collections/users/records/nhwe4xv1b0q2x7t?filter=users", data)
	require.True(t, keep)
	require.Equal(t, "GET /api/collections/users/records/[erased]?filter=[erased]", message)
	require.Equal(t, map[string]any{"type": "request", "auth": "users", "method": "GET", "url": "/api/collections/users/records/[erased]?filter=[erased]", "note": "[erased]", "userAgent": "Mozilla/5.0", "status": 200.0}, data)
}

// JSON stays JSON, its names and numbers as they are, though a text looks like a part of it.
func TestScrubbedJSONStaysJSON(t *testing.T) {
	t.Parallel()
	s := &Scrub{replacer: newReplacer([]string{`e":""`, "error", "Ana Canary"})}
	raw := json.RawMessage(`[{"attempt":12345678901234567890,"error":"no mailbox for Ana Canary","trace":""}]`)
	require.Equal(t, `[{"attempt":12345678901234567890,"error":"no mailbox for [erased]","trace":""}]`, string(s.json(raw, s.value)))
	require.Nil(t, s.json(json.RawMessage(`[{"error":"","trace":""}]`), s.value), "nothing of it changes")
}
