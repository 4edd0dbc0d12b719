// Package journal is the memory of a run: an append-only file with one JSON record a line, from which a run that died
// at any moment can be told and carried on.
//
// Start reading at [Journal]: Append writes a record, Sync makes it durable, Commit does both. The rule that the rest
// of the runner builds on: act only after Sync (or Commit) has returned nil for the record that announces the act.
//
//	{"seq":1,"time":"2026-11-22T11:14:50.501Z","type":"run-started","format":1,"prev":"0000…","crc":"cd77bdeb"}
//	{"seq":2,"time":"2026-11-22T11:14:50.502Z","type":"step-started","step":"a","prev":"3ca9…","crc":"3ffb432f"}
//
// The crc finds damage within a line, prev (the hash of the line before) finds lines that were edited, lost, doubled or
// moved. [Open] and [Read] verify all of it. They forgive one thing, a last line without its newline, since a crash in
// the middle of a write leaves just that; everything else is a [DamageError] and stays untouched for a person to see.
//
// Around the journal: [Store] is the state directory with one folder a run, [Lock] keeps a second runner out, and
// [Children] lets a resumed run wait for what its dead predecessor left running. It needs Unix for flock(2).
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Options are what a journal takes from outside. The zero value is the real world.
type Options struct {
	// Now stamps the records; nil means time.Now.
	Now func() time.Time
	// Open opens the journal's file; nil means the operating system.
	Open func(path string, flag int, perm fs.FileMode) (File, error)
	// MaxDelay is how long an appended record may wait for a sync that nobody asked for; 0 means 50 ms.
	MaxDelay time.Duration
	// Hook sees every record in order, after its write and before Append returns; it is not durable yet then. It runs
	// inside the journal's lock: it must be quick and must not call the journal. The record is its own to keep.
	Hook func(Record)
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Open == nil {
		o.Open = openFile
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = 50 * time.Millisecond
	}
	return o
}

// WriteError says that a journal can no longer be written. It is final: every later call on the journal returns the
// same error, since after a failed write or sync nobody knows what the disk holds. Whether the last record is there is
// for the next Open to find.
type WriteError struct {
	Path string
	Op   string // "write", "sync" or "close"
	Seq  int64  // the record that was being written, or the last one that was to be synced
	Err  error
}

func (e *WriteError) Error() string {
	return fmt.Sprintf("journal %s can no longer be written: %s record %d: %v", e.Path, e.Op, e.Seq, e.Err)
}

func (e *WriteError) Unwrap() error { return e.Err }

// Journal appends to a journal. Its methods may be called from many goroutines. Only one Journal may exist for a file,
// in all processes: hold the run's lock.
type Journal struct {
	path     string
	opts     Options
	encoders sync.Pool

	closeOnce sync.Once
	closeErr  error

	mu       sync.Mutex
	file     File
	seq      int64         // of the last record written
	synced   int64         // the last record known to be durable
	prev     [prevLen]byte // hash of the last line
	line     []byte        // buffer of the line being written
	dead     *WriteError   // set once
	closing  bool          // appends are refused
	flushing bool          // a sync is under way
	again    bool          // another one has to follow it
	flushed  chan struct{} // closed when the sync under way has ended
	timer    *time.Timer   // calls tick
	armed    bool          // the timer is running
}

// Create makes a new journal. The file must not exist; its name is durable when Create returns. The first record must
// be run-started and hold "format": 1.
func Create(path string, o Options) (*Journal, error) {
	o = o.withDefaults()
	f, err := o.Open(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, fmt.Errorf("create journal %s: make its name durable: %w", path, err)
	}
	return newJournal(path, f, o), nil
}

// Open verifies a journal, gives what it holds, and goes on where it ends. A torn last line is cut off and told in
// History.Torn. All that History holds is durable when Open returns. On damage (*DamageError), an unknown format
// (*FormatError), a journal without a record (ErrEmpty) or a missing file (fs.ErrNotExist) nothing is written.
func Open(path string, o Options) (*Journal, *History, error) {
	o = o.withDefaults()
	f, err := o.Open(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	h, err := recoverFile(path, f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	j := newJournal(path, f, o)
	j.seq = int64(len(h.Records))
	j.synced = j.seq
	copy(j.prev[:], h.Head)
	return j, h, nil
}

func recoverFile(path string, f File) (*History, error) {
	data, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	h, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	if h.Torn != nil {
		if err := f.Truncate(h.Torn.Offset); err != nil {
			return nil, fmt.Errorf("journal %s: cut off the %v: %w", path, h.Torn, err)
		}
	}
	// The writer before may have died between write and sync: what is about to be believed must not vanish later.
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("open journal %s: make what it holds durable: %w", path, err)
	}
	return h, nil
}

func newJournal(path string, f File, o Options) *Journal {
	j := &Journal{path: path, opts: o, file: f, prev: genesis()}
	j.encoders.New = func() any { return newEncoder() }
	return j
}

// Path is where the journal lies.
func (j *Journal) Path() string { return j.path }

// Last is the seq of the last record written, 0 before the first.
func (j *Journal) Last() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// Commit appends a record and returns when it is durable.
func (j *Journal) Commit(typ, step string, body any) (int64, error) {
	seq, err := j.append(typ, step, body, false)
	if err != nil {
		return 0, err
	}
	return seq, j.Sync(context.Background(), seq)
}

// Append writes a record, in one write, and gives its seq. A crash of this process does not lose it; a power cut may,
// until a Sync for this or a later record has returned. That Sync begins after Options.MaxDelay at the latest.
//
// The body becomes the record's own fields: a struct, a map, an Appender, or nil for none. A body that is not fit gives
// a *RecordError and leaves the journal as it was; every other error is a *WriteError.
func (j *Journal) Append(typ, step string, body any) (int64, error) {
	return j.append(typ, step, body, true)
}

func (j *Journal) append(typ, step string, body any, lazy bool) (int64, error) {
	if err := j.writable(); err != nil {
		return 0, err
	}
	e := j.encoders.Get().(*encoder)
	defer func() {
		if e.reusable() {
			j.encoders.Put(e)
		}
	}()
	object, err := e.object(body)
	if err != nil {
		return 0, &RecordError{Type: typ, Step: step, Err: err}
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.writableLocked(); err != nil {
		return 0, err
	}
	now := j.opts.Now().Round(0).UTC()
	if err := j.buildLocked(now, typ, step, object); err != nil {
		return 0, &RecordError{Type: typ, Step: step, Err: err}
	}
	n, err := j.file.Write(j.line)
	if err == nil && n < len(j.line) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return 0, j.dieLocked("write", j.seq+1, err)
	}
	j.seq++
	j.prev = hash(j.line[:len(j.line)-1])
	if cap(j.line) > keepBuffer {
		j.line = nil
	}
	if lazy {
		j.armLocked()
	}
	if j.opts.Hook != nil {
		j.opts.Hook(Record{Seq: j.seq, Time: now, Type: typ, Step: step, Body: append([]byte(nil), object...)})
	}
	return j.seq, nil
}

// buildLocked puts the next line, with its newline, into j.line.
func (j *Journal) buildLocked(now time.Time, typ, step string, object []byte) error {
	if err := checkHead(now, typ, step); err != nil {
		return err
	}
	if j.seq == 0 {
		if err := checkFirst(typ, object); err != nil {
			return err
		}
	}
	b := appendHead(j.line[:0], j.seq+1, now, typ, step)
	if len(b)+len(object)+tailLen > maxLine {
		return fmt.Errorf("its line has %d bytes, more than 64 MiB", len(b)+len(object)+tailLen)
	}
	b = appendFields(b, object)
	b = appendTail(b, &j.prev)
	j.line = append(b, '\n')
	return nil
}

// Sync returns nil when the record upTo and all before it are durable. Callers at the same time share one sync of the
// file. When ctx ends first, Sync gives its cause: the record is written then, and nobody may act on it yet.
func (j *Journal) Sync(ctx context.Context, upTo int64) error {
	for {
		j.mu.Lock()
		if j.dead != nil {
			defer j.mu.Unlock()
			return j.dead
		}
		if upTo > j.seq {
			defer j.mu.Unlock()
			return fmt.Errorf("journal %s: sync up to record %d: the last one is %d", j.path, upTo, j.seq)
		}
		if upTo <= j.synced {
			j.mu.Unlock()
			return nil
		}
		lead := j.beginLocked()
		flushed := j.flushed
		j.mu.Unlock()

		if lead && ctx.Done() == nil {
			j.flush() // a caller who cannot leave early saves the change of goroutine
			continue
		}
		if lead {
			go j.flush()
		}
		select {
		case <-flushed:
		case <-ctx.Done():
			return fmt.Errorf("journal %s: wait until record %d is durable: %w", j.path, upTo, context.Cause(ctx))
		}
	}
}

// beginLocked tells the caller to run flush, unless one is running.
func (j *Journal) beginLocked() bool {
	if j.flushing {
		return false
	}
	j.flushing = true
	j.flushed = make(chan struct{})
	return true
}

// flush syncs what is written, and once more where the timer has asked for that meanwhile.
func (j *Journal) flush() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		upTo := j.seq
		j.again = false
		j.mu.Unlock()
		err := j.file.Sync()
		j.mu.Lock()
		if err != nil {
			_ = j.dieLocked("sync", upTo, err)
		} else {
			j.synced = upTo
		}
		close(j.flushed)
		if !j.again || j.dead != nil || j.synced == j.seq {
			break
		}
		j.flushed = make(chan struct{})
	}
	j.flushing = false
	if j.armed && (j.synced == j.seq || j.dead != nil) {
		j.timer.Stop()
		j.armed = false
	}
}

// armLocked sees to it that a sync begins MaxDelay from now at the latest.
func (j *Journal) armLocked() {
	if j.armed {
		return // for an older record, so it fires earlier
	}
	j.armed = true
	if j.timer == nil {
		j.timer = time.AfterFunc(j.opts.MaxDelay, j.tick)
		return
	}
	j.timer.Reset(j.opts.MaxDelay)
}

func (j *Journal) tick() {
	j.mu.Lock()
	j.armed = false
	wanted := j.dead == nil && j.synced < j.seq
	lead := wanted && j.beginLocked()
	j.again = wanted && !lead
	j.mu.Unlock()
	if lead {
		j.flush()
	}
}

// Close makes every record durable and closes the file. A second Close gives the answer of the first.
func (j *Journal) Close() error {
	j.closeOnce.Do(func() {
		j.mu.Lock()
		j.closing = true
		last := j.seq
		j.mu.Unlock()
		j.closeErr = j.Sync(context.Background(), last)

		j.mu.Lock()
		for j.flushing { // the timer's own sync, or one that is failing
			flushed := j.flushed
			j.mu.Unlock()
			<-flushed
			j.mu.Lock()
		}
		defer j.mu.Unlock()
		if j.armed {
			j.timer.Stop()
			j.armed = false
		}
		if j.dead != nil && j.dead.Op == "write" {
			_ = j.file.Sync() // best effort for the records before the one that failed
		}
		err := j.file.Close()
		if j.dead == nil && err != nil {
			j.closeErr = j.dieLocked("close", j.seq, err)
		}
		if j.dead == nil {
			_ = j.dieLocked("close", j.seq, errClosed)
		}
	})
	return j.closeErr
}

var errClosed = errors.New("the journal is closed")

func (j *Journal) writable() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.writableLocked()
}

func (j *Journal) writableLocked() error {
	if j.dead != nil {
		return j.dead
	}
	if j.closing {
		return &WriteError{Path: j.path, Op: "write", Seq: j.seq + 1, Err: errClosed}
	}
	return nil
}

func (j *Journal) dieLocked(op string, seq int64, err error) error {
	if j.dead == nil {
		j.dead = &WriteError{Path: j.path, Op: op, Seq: seq, Err: err}
	}
	return j.dead
}
