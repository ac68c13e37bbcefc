package livecache

import "github.com/pocketbase/pocketbase/core"

// Signal tells every process on a data folder that something has changed which
// is no collection that a [Cache] could hold, because it is too large or a plain
// table. Who keeps something in memory compares [Signal.Stamp] with the one that
// it was read under.
//
// Unlike a cache's collection nothing looks for changes that nobody has told.
type Signal struct{ source *source }

// Stamp is a moment between two changes. It is compared and never read.
type Stamp struct{ stamp stamp }

// NewSignal returns the signal of that name, the same one for every call. The
// name becomes a file name and must not be a collection's id.
func NewSignal(app core.App, name string) *Signal {
	return &Signal{source: hubOf(app).source(name)}
}

// Open makes the signal see other processes' changes at once. It does nothing
// when it does already, or cannot.
func (s *Signal) Open() { s.source.open() }

// Stamp costs two loads and no system call. Take it before reading what it
// stands for.
func (s *Signal) Stamp() Stamp { return Stamp{s.source.stamp()} }

// Changed ends the current stamp here and in the other processes. Call it after
// the commit and before the answer.
func (s *Signal) Changed() { s.source.changed() }
