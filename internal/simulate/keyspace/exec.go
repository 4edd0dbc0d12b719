// Package keyspace holds the data of a simulated server and carries out the commands on it: one Database is one keyspace,
// such as a Redis database or a slot of Pika, and Commands is the table of what can be asked of it. It knows neither
// connections nor replication; an Exec says which keyspace a command works on, and tells afterwards what changed and what
// a replica has to do to come to the same.
package keyspace

import "runbook/internal/simulate/resp"

// Exec is one command being carried out.
type Exec struct {
	DB       *Database
	Now      int64   // Unix milliseconds
	Proto    int     // of the client: 2 or 3
	Expiry   Expiry  // what becomes of a key that is over
	Versions *uint64 // the last version that an Entry got

	// What the command did.
	Dirty                 int        // changes
	Before                [][]string // keys found to be over, deleted first
	Ops                   [][]string // what is replicated instead of the command as it came
	Other                 bool       // Ops stands even where it is empty
	Hits, Misses, Expired int64
}

// Expiry says what a command does with a key whose time is over.
type Expiry int

// A master deletes it, a replica hides it, and what comes over a replication link still finds it: its master decides.
const (
	Delete Expiry = iota
	Hide
	Keep
)

// Replicated is what a replica has to carry out to follow a command that came as args.
func (x *Exec) Replicated(args []string) [][]string {
	switch {
	case x.Other:
		return append(x.Before, x.Ops...)
	case x.Dirty > 0:
		return append(x.Before, args)
	}
	return x.Before
}

// Get finds a key that is not over, as Expiry says, and nil where there is none.
func (x *Exec) Get(k string) *Entry {
	e := x.DB.Keys[k]
	if e == nil {
		return nil
	}
	if e.Expire != 0 && e.Expire <= x.Now && x.Expiry != Keep {
		if x.Expiry == Delete {
			x.DB.Del(k)
			x.Expired++
			x.Before = append(x.Before, []string{"DEL", k})
		}
		return nil
	}
	return e
}

// read is Get for a command that reads: it counts as hit or miss.
func (x *Exec) read(k string) *Entry {
	e := x.Get(k)
	if e == nil {
		x.Misses++
	} else {
		x.Hits++
	}
	return e
}

// set stores a new value under k and counts as a change.
func (x *Exec) set(k string, e *Entry) {
	x.DB.Put(k, e)
	x.Changed(k)
}

// Changed notes that the key's value was changed, and removes it where nothing is left of it.
func (x *Exec) Changed(k string) {
	x.Dirty++
	*x.Versions++
	e := x.DB.Keys[k]
	if e == nil {
		return
	}
	e.Version = *x.Versions
	if e.empty() {
		x.DB.Del(k)
	}
}

func (x *Exec) del(k string) bool {
	if x.Get(k) == nil {
		return false
	}
	x.DB.Del(k)
	x.Dirty++
	return true
}

// Instead has these commands replicated in place of the one that came.
func (x *Exec) Instead(ops ...[]string) { x.Ops, x.Other = append(x.Ops, ops...), true }

// What a command answers where it cannot be carried out.
var (
	ErrSyntax  = resp.Errorf("ERR syntax error")
	ErrType    = resp.Errorf("WRONGTYPE Operation against a key holding the wrong kind of value")
	ErrInt     = resp.Errorf("ERR value is not an integer or out of range")
	ErrFloat   = resp.Errorf("ERR value is not a valid float")
	ErrNoKey   = resp.Errorf("ERR no such key")
	errNothing = resp.Value{}
)

// typed finds a key of one type. bad is the error where it holds another, e nil where it does not exist.
func (x *Exec) typed(k, typ string) (e *Entry, bad resp.Value) {
	e = x.Get(k)
	if e != nil && e.Type != typ {
		return nil, ErrType
	}
	return e, errNothing
}

// make is typed, and creates the key where it is missing.
func (x *Exec) make(k, typ string) (*Entry, resp.Value) {
	e, bad := x.typed(k, typ)
	if e == nil && bad.IsZero() {
		e = newEntry(typ)
		x.DB.Put(k, e)
	}
	return e, bad
}
