package resp_test

import (
	"bufio"
	"bytes"
	"reflect"
	"strings"
	"testing"

	"runbook/internal/simulate/resp"
)

func TestRoundTrip(t *testing.T) {
	for _, v := range []resp.Value{
		resp.OK(), resp.Errorf("ERR no"), resp.Number(-3), resp.Text("a\r\nb"), resp.Text(""), resp.Nil(), resp.List(),
		resp.List(resp.Text("x"), resp.List(resp.Number(1)), resp.Nil()),
		{Kind: resp.Map, Items: []resp.Value{resp.Text("k"), resp.Number(1)}}, {Kind: resp.Set, Items: []resp.Value{resp.Text("k")}},
		{Kind: resp.Double, Double: 1.5}, {Kind: resp.Bool, Int: 1}, {Kind: resp.Verb, Str: "text"},
	} {
		got, err := resp.Read(bufio.NewReader(bytes.NewReader(v.Append(nil, 3))))
		if err != nil || got.String() != v.String() || got.Kind != v.Kind || len(got.Items) != len(v.Items) {
			t.Errorf("%q came back as %+v, %v", v.Append(nil, 3), got, err)
		}
	}
}

func FuzzReadCommand(f *testing.F) {
	f.Add("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
	f.Add("PING a\r\n")
	f.Add("*1\r\n$-5\r\n")
	f.Add("*-1\r\n\r\n*99999999999\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		args, err := resp.ReadCommand(bufio.NewReader(strings.NewReader(in)))
		if err != nil {
			return
		}
		again, err := resp.ReadCommand(bufio.NewReader(bytes.NewReader(resp.Command(args...))))
		if err != nil || !reflect.DeepEqual(args, again) {
			t.Errorf("%q became %q, %v", args, again, err)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add("*2\r\n:1\r\n%1\r\n+a\r\n,1.5\r\n")
	f.Add("$-1\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		v, err := resp.Read(bufio.NewReader(strings.NewReader(in)))
		if err == nil {
			_ = v.Append(nil, 2)
		}
	})
}
