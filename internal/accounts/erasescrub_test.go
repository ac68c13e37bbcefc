package accounts

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A row about somebody's refused request also says what they sent: the name of a
// file is nowhere else, so that no search for what is known of them finds it.
func TestLogRowsLoseTheDetailsOfARefusal(t *testing.T) {
	t.Parallel()
	s := &Scrub{replacer: strings.NewReplacer("nhwe4xv1b0q2x7t", "[erased]")}
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
