package twemproxy

import "strings"

// shape is how a command's arguments must look for nutcracker to take it; one that it does not take closes the connection.
type shape struct {
	least, most int // arguments behind the command's name; most -1: any number
	key         int // which of them is the key, 0 the first; -1: none
	step        int // of a command that is split over servers: 1 keys alone, 2 keys and values
}

// The commands that nutcracker 0.5.0 forwards, by their shapes; tried one by one on the real one.
var shapes = map[shape]string{
	{0, 0, -1, 0}:  `ping quit`,
	{0, -1, -1, 0}: `lolwut`,
	{1, 1, 0, 0}:   `decr dump get getdel hgetall hkeys hlen hvals incr llen persist pttl scard smembers strlen ttl type zcard`,
	{2, 2, 0, 0}: `append decrby expire expireat getbit getset hexists hget hstrlen incrby incrbyfloat lindex pexpire
		pexpireat rpoplpush setnx sismember zrank zrevrank zscore`,
	{3, 3, 0, 0}: `getrange hincrby hincrbyfloat hsetnx lrange lrem lset ltrim psetex setbit setex setrange smove zcount
		zincrby zlexcount zremrangebylex zremrangebyrank zremrangebyscore`,
	{4, 4, 0, 0}: `linsert lmove`,
	{1, -1, 0, 0}: `bitcount bitfield bitpos copy exists geoadd geodist geohash geopos georadius georadiusbymember geosearch
		geosearchstore getex hdel hmget hmset hrandfield hscan hset lpop lpos lpush lpushx pfadd pfcount pfmerge restore
		rpop rpush rpushx sadd sdiff sdiffstore set sinter sinterstore smismember sort spop srandmember srem sscan sunion
		sunionstore zadd zdiff zdiffstore zinter zinterstore zmscore zpopmax zpopmin zrandmember zrange zrangebylex
		zrangebyscore zrangestore zrem zrevrange zrevrangebylex zrevrangebyscore zscan zunion zunionstore`,
	{3, -1, 2, 0}: `eval evalsha`,
	{1, -1, 0, 1}: `del mget touch unlink`,
	{2, -1, 0, 2}: `mset`,
}

// commands finds a command's shape by its name in small letters.
func commands() map[string]shape {
	all := map[string]shape{}
	for s, names := range shapes {
		for name := range strings.FieldsSeq(names) {
			all[name] = s
		}
	}
	return all
}

// takes tells whether a request has the shape.
func (s shape) takes(args []string) bool {
	n := len(args) - 1
	return n >= s.least && (s.most < 0 || n <= s.most) && (s.step < 2 || n%s.step == 0)
}

// tagged gives the part of a key that decides where it goes. Unlike Codis and Pika, nutcracker takes the whole key
// where there is nothing between the two characters.
func (p *Pool) tagged(key string) string {
	if p.HashTag == "" {
		return key
	}
	_, rest, ok := strings.Cut(key, p.HashTag[:1])
	tag, _, closed := strings.Cut(rest, p.HashTag[1:])
	if !ok || !closed || tag == "" {
		return key
	}
	return tag
}
