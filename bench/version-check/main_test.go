package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// It runs and prints what it measured; how fast is nobody's business here.
func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	ratio, err := run(options{pairs: 3, round: 5 * time.Millisecond, connections: 2, target: 0.95}, &out)
	require.NoError(t, err)
	require.Positive(t, ratio)
	require.Regexp(t, `(?m)^version-check / health: \d+\.\d{3} \(median of 3 pairs; quartiles`, out.String())
	require.Regexp(t, `(?m)^/api/version-check .* all 2xx$`, out.String())
}

func TestMeasureCountsOnlyGoodAnswers(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			_, _ = w.Write([]byte("expected"))
		case "/other":
			_, _ = w.Write([]byte("surprise"))
		default:
			http.Error(w, "expected", http.StatusTooManyRequests)
		}
	}))
	defer server.Close()

	for path, problem := range map[string]string{
		"/good":    "",
		"/other":   `GET /other: answered "surprise"`,
		"/limited": `GET /limited: answered "HTTP/1.1 429 Too Many Requests"`,
	} {
		c, err := dial(server.Listener.Addr().String())
		require.NoError(t, err)
		r := &route{path: path, contains: "expected"}
		rate, err := measure([]*client{c}, r, 10*time.Millisecond, true)
		c.close()
		if problem != "" {
			require.EqualError(t, err, problem)
			require.Zero(t, r.answers)
			continue
		}
		require.NoError(t, err)
		require.Positive(t, rate)
		require.Positive(t, r.answers)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 3.0, quantile([]float64{5, 1, 3, 4, 2}, 0.5), 0)
	require.InDelta(t, 1.0, quantile([]float64{5, 1, 3, 4, 2}, 0), 0)
	require.InDelta(t, 5.0, quantile([]float64{5, 1, 3, 4, 2}, 1), 0)
	require.Equal(t, time.Second, quantile([]time.Duration{time.Second}, 0.99))
}
