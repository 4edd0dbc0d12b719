// Package resp speaks the Redis wire protocol, both ends of it: values and how they are written, commands and how
// they are read, and a small connection for the client's side. The simulated servers, the traffic that loads them and
// the tests that hold them to recordings share it, so that all three mean the same bytes. It has no retries, no pool
// and no opinion: what went wrong on the wire is what the caller is told.
package resp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Kind is the first byte of a value on the wire.
type Kind byte

// The kinds of RESP2, and those of RESP3 that have a plainer form in RESP2.
const (
	Status Kind = '+'
	Err    Kind = '-'
	Int    Kind = ':'
	Bulk   Kind = '$'
	Array  Kind = '*'
	Map    Kind = '%' // Items alternate key and value
	Set    Kind = '~'
	Double Kind = ','
	Null   Kind = '_'
	Bool   Kind = '#'
	Verb   Kind = '=' // verbatim text; Str is the text without its "txt:" mark
)

// Value is one value of the protocol, whole. The zero Value is not a value: a handler that answers nothing returns it.
type Value struct {
	Kind   Kind
	Str    string // Status, Err, Bulk, Verb
	Int    int64  // Int, Bool
	Double float64
	Items  []Value
	Gone   bool // the null array of RESP2, with Kind Null
}

// OK is the answer of most commands that change something.
var okValue = Value{Kind: Status, Str: "OK"}

// OK answers +OK.
func OK() Value { return okValue }

// Simple answers a status line.
func Simple(s string) Value { return Value{Kind: Status, Str: s} }

// Errorf answers an error line; the text carries its own code, such as "ERR syntax error".
func Errorf(format string, args ...any) Value {
	if len(args) == 0 {
		return Value{Kind: Err, Str: format}
	}
	return Value{Kind: Err, Str: fmt.Sprintf(format, args...)}
}

// Text answers a bulk string.
func Text(s string) Value { return Value{Kind: Bulk, Str: s} }

// Number answers an integer.
func Number[N ~int | ~int64](n N) Value { return Value{Kind: Int, Int: int64(n)} }

// Nil answers the null bulk string.
func Nil() Value { return Value{Kind: Null} }

// NilArray answers the null array, which an EXEC that lost its watch gives.
func NilArray() Value { return Value{Kind: Null, Gone: true} }

// List answers an array of the values.
func List(items ...Value) Value { return Value{Kind: Array, Items: items} }

// Texts answers an array of bulk strings.
func Texts(ss ...string) Value {
	v := Value{Kind: Array, Items: make([]Value, len(ss))}
	for i, s := range ss {
		v.Items[i] = Text(s)
	}
	return v
}

// IsZero says whether v is no value at all.
func (v Value) IsZero() bool { return v.Kind == 0 }

// Error gives the error that an error reply stands for, and nil for every other reply.
func (v Value) Error() error {
	if v.Kind == Err {
		return ReplyError(v.Str)
	}
	return nil
}

// Strings gives the texts of an array's items; integers in decimal, nulls as "".
func (v Value) Strings() []string {
	out := make([]string, len(v.Items))
	for i, it := range v.Items {
		out[i] = it.String()
	}
	return out
}

// String gives the text of a scalar, for code that does not care which kind it came as.
func (v Value) String() string {
	switch v.Kind {
	case Int, Bool:
		return strconv.FormatInt(v.Int, 10)
	case Double:
		return FormatDouble(v.Double)
	case Array, Map, Set:
		return strings.Join(v.Strings(), " ")
	}
	return v.Str
}

// ReplyError is an error that the server answered: the request arrived and was refused. Every other error of a
// connection leaves open whether the request was carried out.
type ReplyError string

func (e ReplyError) Error() string { return string(e) }

// Code is the first word, such as READONLY.
func (e ReplyError) Code() string { code, _, _ := strings.Cut(string(e), " "); return code }

// FormatDouble writes a number as Redis 7.0 does ("%.17g").
func FormatDouble(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case f == math.Trunc(f) && math.Abs(f) < 1e17:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return trimExp(strconv.FormatFloat(f, 'g', 17, 64))
}

// trimExp drops the zeros that %g of C would not print.
func trimExp(s string) string {
	mant, exp, has := strings.Cut(s, "e")
	if strings.Contains(mant, ".") {
		mant = strings.TrimRight(strings.TrimRight(mant, "0"), ".")
	}
	if has {
		return mant + "e" + exp
	}
	return mant
}

// Append writes v as protocol 2 or 3 asks.
func (v Value) Append(b []byte, proto int) []byte {
	num := func(k Kind, n int64) { b = append(strconv.AppendInt(append(b, byte(k)), n, 10), '\r', '\n') }
	line := func(k Kind, s string) { b = append(append(append(b, byte(k)), oneLine(s)...), '\r', '\n') }
	bulk := func(s string) { num(Bulk, int64(len(s))); b = append(append(b, s...), '\r', '\n') }
	switch v.Kind {
	case Status, Err:
		line(v.Kind, v.Str)
	case Int:
		num(Int, v.Int)
	case Bool:
		if proto < 3 {
			num(Int, v.Int)
		} else {
			line(Bool, map[int64]string{0: "f", 1: "t"}[v.Int])
		}
	case Bulk:
		bulk(v.Str)
	case Verb:
		if proto < 3 {
			bulk(v.Str)
		} else {
			num(Verb, int64(len(v.Str)+4))
			b = append(append(append(b, "txt:"...), v.Str...), '\r', '\n')
		}
	case Double:
		if proto < 3 {
			bulk(FormatDouble(v.Double))
		} else {
			line(Double, FormatDouble(v.Double))
		}
	case Null:
		switch {
		case proto >= 3:
			b = append(b, "_\r\n"...)
		case v.Gone:
			b = append(b, "*-1\r\n"...)
		default:
			b = append(b, "$-1\r\n"...)
		}
	case Array, Map, Set:
		n, k := int64(len(v.Items)), v.Kind
		if proto < 3 {
			k = Array
		} else if k == Map {
			n /= 2
		}
		num(k, n)
		for _, it := range v.Items {
			b = it.Append(b, proto)
		}
	}
	return b
}

func oneLine(s string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(s) }

// Command gives the bytes of a request. Its length is also what the command adds to a replication offset.
func Command(args ...string) []byte {
	b := make([]byte, 0, 16+16*len(args))
	b = append(strconv.AppendInt(append(b, '*'), int64(len(args)), 10), '\r', '\n')
	for _, a := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), '\r', '\n')
		b = append(append(b, a...), '\r', '\n')
	}
	return b
}

// ErrProtocol says that the bytes are no RESP; the connection is of no more use.
var ErrProtocol = errors.New("not the redis protocol")

// limits of what is read: far above anything a migration sends, low enough that garbage cannot fill the memory.
const (
	maxBulk  = 64 << 20
	maxItems = 4 << 20
)

// ReadCommand reads a request: an array of bulk strings, or an inline command as one types it into telnet.
// Empty requests are passed over, as Redis does.
func ReadCommand(r *bufio.Reader) ([]string, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			continue
		}
		if line[0] != '*' {
			if args := strings.Fields(string(line)); len(args) > 0 {
				return args, nil
			}
			continue
		}
		n, err := strconv.Atoi(string(line[1:]))
		if err != nil || n > maxItems {
			return nil, fmt.Errorf("%w: invalid multibulk length", ErrProtocol)
		}
		if n <= 0 {
			continue
		}
		args := make([]string, 0, min(n, 1024))
		for range n {
			line, err := readLine(r)
			if err != nil {
				return nil, err
			}
			if len(line) == 0 || line[0] != '$' {
				return nil, fmt.Errorf("%w: expected '$'", ErrProtocol)
			}
			s, _, err := readBulk(r, line[1:])
			if err != nil {
				return nil, err
			}
			args = append(args, s)
		}
		return args, nil
	}
}

// Read reads one value, whatever its kind.
func Read(r *bufio.Reader) (Value, error) {
	line, err := readLine(r)
	if err != nil {
		return Value{}, err
	}
	if len(line) == 0 {
		return Value{}, ErrProtocol
	}
	k, rest := Kind(line[0]), line[1:]
	switch k {
	case Status, Err:
		return Value{Kind: k, Str: string(rest)}, nil
	case Int:
		n, err := strconv.ParseInt(string(rest), 10, 64)
		if err != nil {
			return Value{}, fmt.Errorf("%w: %q", ErrProtocol, line)
		}
		return Value{Kind: Int, Int: n}, nil
	case Bool:
		return Value{Kind: Bool, Int: map[string]int64{"t": 1}[string(rest)]}, nil
	case Double:
		f, err := strconv.ParseFloat(string(rest), 64)
		if err != nil {
			return Value{}, fmt.Errorf("%w: %q", ErrProtocol, line)
		}
		return Value{Kind: Double, Double: f}, nil
	case Null:
		return Nil(), nil
	case Bulk, Verb:
		s, null, err := readBulk(r, rest)
		switch {
		case err != nil:
			return Value{}, err
		case null:
			return Nil(), nil
		}
		if k == Verb {
			s = strings.TrimPrefix(s, "txt:")
		}
		return Value{Kind: k, Str: s}, nil
	case Array, Map, Set:
		n, err := strconv.Atoi(string(rest))
		if err != nil || n > maxItems {
			return Value{}, fmt.Errorf("%w: %q", ErrProtocol, line)
		}
		if n < 0 {
			return NilArray(), nil
		}
		if k == Map {
			n *= 2
		}
		v := Value{Kind: k, Items: make([]Value, 0, min(n, 1024))}
		for range n {
			it, err := Read(r)
			if err != nil {
				return Value{}, err
			}
			v.Items = append(v.Items, it)
		}
		return v, nil
	}
	return Value{}, fmt.Errorf("%w: %q", ErrProtocol, line)
}

func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("%w: line too long", ErrProtocol)
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func readBulk(r *bufio.Reader, size []byte) (s string, null bool, err error) {
	n, err := strconv.Atoi(string(size))
	if err != nil || n > maxBulk {
		return "", false, fmt.Errorf("%w: invalid bulk length", ErrProtocol)
	}
	if n < 0 {
		return "", true, nil
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", false, err
	}
	return string(b[:n]), false, nil
}
