package hooks

import "time"

// Clock is the time that notifications go by.
func Clock(now func() time.Time) func(*Config) { return func(c *Config) { c.now = now } }

// AnswerAtOnce takes the wait out of the answers that hide whether an account is
// there, for tests that look at everything but the time.
func AnswerAtOnce(c *Config) { c.answerFloor = time.Nanosecond }

// Disk is the room on the disk that schedules see.
func Disk(read func(dir string) (free, total uint64, err error)) func(*Config) {
	return func(c *Config) { c.disk = read }
}
