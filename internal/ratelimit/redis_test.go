package ratelimit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pocketbase/pocketbase/core"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what comes in a moment on a machine that is
// not busy.
const patience = 2 * time.Minute

// startRedis starts a real Redis of its own, on a socket in a folder that ends
// with the test. It is gone when kill returns.
func startRedis(t *testing.T) (address string, kill func()) {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		const why = "redis-server is not installed: apt-get install redis-server"
		if os.Getenv("REQUIRE_PEERS") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir, err := os.MkdirTemp("", "gw") // a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(binary, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir, "--daemonize", "no")
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	kill = func() {
		_ = cmd.Process.Kill()
		<-exited
	}
	t.Cleanup(kill)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	t.Cleanup(func() { _ = client.Close() })
	require.Eventually(t, func() bool { return client.Ping(t.Context()).Err() == nil }, patience, 10*time.Millisecond)
	return "unix://" + socket, kill
}

// newRedisLimiter is one that waits until a busy machine lets its Redis answer, or
// ("hangs") as short as others do.
func newRedisLimiter(t *testing.T, address string, log *bytes.Buffer, hangs ...bool) *Limiter {
	t.Helper()
	if log == nil {
		log = &bytes.Buffer{}
	}
	lines := slog.New(slog.NewTextHandler(log, nil))
	l, err := New(Options{Secret: make([]byte, 32), Redis: address, Log: lines})
	require.NoError(t, err)
	t.Cleanup(l.Close)
	if len(hangs) == 0 {
		require.NoError(t, l.shared.client.Close())
		l.shared, err = newRedis(address, patience, lines)
		require.NoError(t, err)
	}
	return l
}

// In Redis too, for processes that share it: no window, by Redis's own clock,
// holds more than the limit.
func TestNoWindowHoldsMoreThanTheLimitInRedis(t *testing.T) {
	t.Parallel()
	address, _ := startRedis(t)
	a, b := newRedisLimiter(t, address, nil), newRedisLimiter(t, address, nil)
	for _, w := range []Window{{1, 30 * time.Millisecond}, {5, 50 * time.Millisecond}, {64, 100 * time.Millisecond}, {65, 100 * time.Millisecond}, {200, 150 * time.Millisecond}} {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			key := a.Key("property", fmt.Sprint(w))
			var mu sync.Mutex
			var stamps []int64
			enough := func() bool { mu.Lock(); defer mu.Unlock(); return len(stamps) > 2*w.Limit+10 }
			deadline := time.Now().Add(patience)
			var wg sync.WaitGroup
			for i := range 8 {
				l := a
				if i%2 == 1 {
					l = b
				}
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(i), 2))
					for !enough() && time.Now().Before(deadline) {
						taken, ok := l.shared.take(key, w)
						if !ok || !taken.OK {
							continue
						}
						if rnd.IntN(10) == 0 {
							l.shared.change(key, w, taken.at, false)
							continue
						}
						mu.Lock()
						stamps = append(stamps, taken.at)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, most(stamps, w.Length.Microseconds()), w.Limit)
			require.Greater(t, len(stamps), 2*w.Limit)
		})
	}
}

// The script decides as the counter in memory does, for the same arrivals.
func TestRedisCountsAsMemoryDoes(t *testing.T) {
	t.Parallel()
	address, _ := startRedis(t)
	l := newRedisLimiter(t, address, nil)
	for _, w := range []Window{{3, time.Hour}, {100, time.Hour}} {
		key := l.Key("same", fmt.Sprint(w))
		m, _ := newTestMemory(DefaultMemory)
		var there, here []Taken
		rnd := rand.New(rand.NewPCG(1, uint64(w.Limit)))
		for range 300 {
			if rnd.IntN(3) == 0 && len(there) > 0 {
				i := len(there) - 1
				l.shared.change(key, w, there[i].at, false)
				m.change(key, w, here[i].at, false)
				there, here = there[:i], here[:i]
				continue
			}
			x, ok := l.shared.take(key, w)
			require.True(t, ok)
			y := m.take(key, w, false)
			require.Equal(t, y.OK, x.OK)
			require.Equal(t, y.Remaining, x.Remaining)
			if x.OK {
				there, here = append(there, x), append(here, y)
			}
		}
	}
}

func TestProcessesShareRedis(t *testing.T) {
	t.Parallel()
	address, _ := startRedis(t)
	a, b := newRedisLimiter(t, address, nil), newRedisLimiter(t, address, nil)
	for _, durable := range []bool{false, true} {
		count := Count{Key: a.Key("shared", fmt.Sprint(durable)), Window: Window{5, time.Hour}, Durable: durable}
		require.Equal(t, count.Key, b.Key("shared", fmt.Sprint(durable)))
		var passed atomic.Int64
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if slot := []*Limiter{a, b}[i%2].Take(t.Context(), count); slot.OK {
					passed.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 5, passed.Load())
		refused := b.Take(t.Context(), count)
		require.False(t, refused.OK)
		require.Positive(t, refused.Grows)
	}
}

// Without Redis each process goes on by itself; what protects an account knows
// what came while Redis was there. It is said once.
func TestRedisGoes(t *testing.T) {
	t.Parallel()
	address, kill := startRedis(t)
	app := core.NewBaseApp(core.BaseAppConfig{DataDir: t.TempDir()})
	require.NoError(t, app.Bootstrap())
	t.Cleanup(func() { _ = app.ClearBootstrap() })
	var log bytes.Buffer
	l := newRedisLimiter(t, address, &log)
	require.NoError(t, l.Open(app))

	codes := Count{Key: l.Key("codes"), Window: Window{5, time.Hour}, Durable: true}
	pages := Count{Key: l.Key("pages"), Window: Window{5, time.Hour}}
	for range 3 {
		slot := l.Take(t.Context(), codes)
		require.True(t, slot.OK)
		require.True(t, slot.shared)
	}
	kill()
	n, m := 0, 0
	for range 20 {
		if l.Take(t.Context(), codes).OK {
			n++
		}
		if l.Take(t.Context(), pages).OK {
			m++
		}
	}
	require.Equal(t, 2, n, "three were used up with Redis")
	require.Equal(t, 5, m)
	require.Equal(t, 1, strings.Count(log.String(), "Redis does not answer"), log.String())
}

// A Redis that takes connections and never answers holds nobody up for long.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var calls atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			defer conn.Close()
		}
	}()
	var log bytes.Buffer
	l := newRedisLimiter(t, "redis://:secret@"+listener.Addr().String()+"/0", &log, true)
	count := Count{Key: l.Key("x"), Window: Window{5, time.Hour}}
	n, began := 0, time.Now()
	for range 10_000 {
		if l.Take(context.Background(), count).OK {
			n++
		}
	}
	require.Equal(t, 5, n)
	require.Equal(t, 1, strings.Count(log.String(), "Redis does not answer"), log.String())
	require.NotContains(t, log.String(), "secret")
	most := 20 * (1 + int64(time.Since(began)/redisPause)) // on a machine that takes so long for these
	require.Less(t, calls.Load(), most, "it is asked again only now and then")
}
