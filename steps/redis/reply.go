package redis

import (
	"fmt"
	"strconv"

	"runbook/steps"
)

// Reply is what a server answered. Its methods give the shape that the caller expects,
// or an error of kind reply that names the request.
type Reply struct {
	v    any
	err  error
	from request
}

// Err is the server's error, for a reply of [Client.Read].
func (r Reply) Err() error { return r.err }

// IsNull tells a null: no such key, field or member.
func (r Reply) IsNull() bool { return r.err == nil && r.v == nil }

// Text gives a text; a null is the empty text.
func (r Reply) Text() (string, error) {
	switch v := r.v.(type) {
	case nil:
		return "", r.err
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	return "", r.unexpected("a text")
}

// Int gives a whole number.
func (r Reply) Int() (int64, error) {
	switch v := r.v.(type) {
	case int64:
		return v, nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, r.unexpected("a whole number")
}

// Items gives an array's; a null is an empty one.
func (r Reply) Items() ([]Reply, error) {
	switch v := r.v.(type) {
	case nil:
		return nil, r.err
	case []any:
		items := make([]Reply, len(v))
		for i, it := range v {
			items[i] = Reply{v: it, from: r.from}
			if err, ok := it.(error); ok {
				items[i].v, items[i].err = nil, serverError(r.from, err)
			}
		}
		return items, nil
	}
	return nil, r.unexpected("a list")
}

// Texts gives an array of texts; nulls are empty texts.
func (r Reply) Texts() ([]string, error) {
	items, err := r.Items()
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(items))
	for i, it := range items {
		if texts[i], err = it.Text(); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// Pairs gives an array of names and values.
func (r Reply) Pairs() (map[string]string, error) {
	texts, err := r.Texts()
	if err != nil {
		return nil, err
	}
	if len(texts)%2 != 0 {
		return nil, r.unexpected("names with values")
	}
	m := make(map[string]string, len(texts)/2)
	for i := 0; i < len(texts); i += 2 {
		m[texts[i]] = texts[i+1]
	}
	return m, nil
}

// Value gives the reply as plain data: text, int64, list or nil; an error inside a list is its text.
func (r Reply) Value() any { return plainData(r.v) }

func plainData(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plainData(v[i])
		}
		return list
	case error:
		return v.Error()
	}
	return v
}

func (r Reply) unexpected(want string) error {
	if r.err != nil {
		return r.err
	}
	return steps.Errorf("reply", "%s: %s was expected, not %s", r.from, want, kindOf(r.v))
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "a null"
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case int64:
		return "a number"
	case string:
		return "a text"
	}
	return fmt.Sprintf("%T", v)
}
