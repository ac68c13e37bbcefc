package accounts

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhenToCompact(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		now, last time.Time
		size      int64
		wait      time.Duration
	}{
		"small, the first time":       {noon, time.Time{}, 1 << 20, 0},
		"small, again at once":        {noon, noon.Add(-time.Minute), 1 << 20, 59 * time.Minute},
		"small, an hour later":        {noon, noon.Add(-time.Hour), 1 << 20, 0},
		"large, by day":               {noon, time.Time{}, 1 << 30, 15 * time.Hour},
		"large, just before":          {noon.Add(-9*time.Hour - time.Second), time.Time{}, 1 << 30, time.Second},
		"large, at night":             {noon.Add(-9 * time.Hour), time.Time{}, 1 << 30, 0},
		"large, at night, once more":  {noon.Add(-9*time.Hour + time.Minute), noon.Add(-9 * time.Hour), 1 << 30, 59 * time.Minute},
		"large, by day, another zone": {noon.In(time.FixedZone("", 9*3600)), time.Time{}, 1 << 30, 15 * time.Hour},
	} {
		require.Equal(t, c.wait, compactWait(c.now, c.last, c.size), name)
	}
}

func TestReplacerFindsEveryForm(t *testing.T) {
	t.Parallel()
	s := &Scrub{replacer: newReplacer([]string{"Ana+1@example.com", `Ana "the <cat>"`, "Zoë Ana"})}
	for _, text := range []string{
		"mail to Ana+1@example.com failed", "mail to ana+1@example.com failed", "?email=Ana%2B1%40example.com", `{"name":"Ana \"the <cat>\""}`,
		`{"name":"Ana \"the \u003ccat\u003e\""}`, "?q=Zo%C3%AB+Ana", "/Zo%C3%AB%20Ana/",
	} {
		require.Contains(t, s.Text(text), Erased, text)
		require.NotContains(t, s.Text(text), "cat")
		require.NotContains(t, s.Text(text), "example.com")
	}
	require.Equal(t, "somebody else", s.Text("somebody else"))
}
