package ratelimit

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// redisTimeout is how long a request waits for Redis at most.
	redisTimeout = 250 * time.Millisecond
	// redisPause is how long Redis is left alone after it failed; then one request
	// tries it again.
	redisPause = 2 * time.Second
)

// redisLogs keeps the same logs of arrivals as [memory], in Redis, by Redis's
// clock: one script, so that processes on several machines count as one. A log
// is one value that goes by itself when nothing in it counts any more.
//
// When Redis does not answer, take says so and the caller counts here alone. A
// Redis that hangs costs one request in two seconds a quarter of a second.
type redisLogs struct {
	client  *redis.Client
	timeout time.Duration // of one call
	log     *slog.Logger
	down    atomic.Bool
	retry   atomic.Int64 // Unix nanoseconds
}

// silent keeps the client's own lines off standard error: what matters is logged
// here, once.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func newRedis(address string, timeout time.Duration, log *slog.Logger) (*redisLogs, error) {
	options, err := redis.ParseURL(address)
	if err != nil {
		return nil, fmt.Errorf("read the address of Redis: %w", err)
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = timeout, timeout, timeout, timeout
	options.MaxRetries, options.DialerRetries = -1, 1
	options.ContextTimeoutEnabled = true
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	redis.SetLogger(silent{})
	return &redisLogs{client: redis.NewClient(options), timeout: timeout, log: log}, nil
}

// What both scripts begin with: the time in microseconds, the log as a flat list
// of times and numbers, and what has left the window dropped. Numbers stay below
// 2^53, which Lua counts exactly.
const redisPrelude = `
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local limit, length = tonumber(ARGV[1]), tonumber(ARGV[2])
local raw = redis.call('GET', KEYS[1])
local old, log, total = {}, {}, 0
if raw then old = cmsgpack.unpack(raw) end
for i = 1, #old, 2 do
	if old[i] >= now - length then
		log[#log + 1] = old[i]
		log[#log + 1] = old[i + 1]
		total = total + old[i + 1]
	end
end
local function stamp()
	local step = math.floor(length / 64)
	if limit <= 64 or step < 2 then return now end
	return (math.floor(now / step) + 1) * step
end
local function add(at)
	if #log > 0 and log[#log - 1] >= at then
		log[#log] = log[#log] + 1
		at = log[#log - 1]
	else
		log[#log + 1] = at
		log[#log + 1] = 1
	end
	total = total + 1
	return at
end
local function keep()
	if #log == 0 then redis.call('DEL', KEYS[1]) return end
	redis.call('SET', KEYS[1], cmsgpack.pack(log), 'PX', math.ceil((log[#log - 1] + length - now) / 1000) + 1)
end
local function grows()
	if #log == 0 then return 0 end
	return math.max(log[1] + length - now + 1, 1)
end
`

var (
	redisTake = redis.NewScript(redisPrelude + `
if total >= limit then return {0, 0, grows(), 0} end
local at = add(stamp())
keep()
return {1, limit - total, grows(), at}
`)
	redisChange = redis.NewScript(redisPrelude + `
local at = tonumber(ARGV[3])
for i = #log - 1, 1, -2 do
	if log[i] == at then
		log[i + 1] = log[i + 1] - 1
		if log[i + 1] == 0 then
			table.remove(log, i)
			table.remove(log, i)
		end
		if ARGV[4] == '1' then at = add(stamp()) end
		break
	end
end
keep()
return at
`)
)

func redisKey(key Key) []string { return []string{"groundwork:limit:" + hex.EncodeToString(key[:])} }

// ready says whether to ask Redis: always while it answers, and for one request
// every two seconds while it does not.
func (r *redisLogs) ready() bool {
	if !r.down.Load() {
		return true
	}
	at, t := r.retry.Load(), time.Now().UnixNano()
	return t >= at && r.retry.CompareAndSwap(at, t+int64(redisPause))
}

// done takes notice of what a call ended with.
func (r *redisLogs) done(err error) {
	if err == nil {
		if r.down.CompareAndSwap(true, false) {
			r.log.Info("Redis answers again: rate limits are shared again")
		}
		return
	}
	r.retry.Store(time.Now().Add(redisPause).UnixNano())
	if r.down.CompareAndSwap(false, true) {
		r.log.Error("Redis does not answer: each process counts for itself until it does", "error", err)
	}
}

// take counts one if the window has room; ok is false when Redis cannot say.
func (r *redisLogs) take(key Key, w Window) (taken Taken, ok bool) {
	if !r.ready() {
		return Taken{}, false
	}
	// Not the request's context: a client that goes away is no failure of Redis.
	ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
	defer cancel()
	answer, err := redisTake.Run(ctx, r.client, redisKey(key), w.Limit, w.Length.Microseconds()).Int64Slice()
	if err == nil && len(answer) != 4 {
		err = fmt.Errorf("%d values came back instead of 4", len(answer))
	}
	r.done(err)
	if err != nil {
		return Taken{}, false
	}
	return Taken{OK: answer[0] == 1, Remaining: int(answer[1]), Grows: time.Duration(answer[2]) * time.Microsecond, at: answer[3]}, true
}

// change gives a take back, or makes it count from now on. Without Redis nothing
// happens: the take counts on.
func (r *redisLogs) change(key Key, w Window, at int64, again bool) {
	if !r.ready() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
	defer cancel()
	mode := "0"
	if again {
		mode = "1"
	}
	r.done(redisChange.Run(ctx, r.client, redisKey(key), w.Limit, w.Length.Microseconds(), at, mode).Err())
}
