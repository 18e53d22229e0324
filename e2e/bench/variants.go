package main

// variant is something that is compared with the floor: calls over the same
// mTLS with nothing else.
type variant struct {
	name, about  string
	server, load string // see [Server.options] and [Setup.load]
	baseline     string // what is sent to the floor; "" stands for plain
	concurrency  []int
	unbatched    bool
	peer         bool // it is not ours
	bare         bool // it is nobody's: it verifies no tenant
}

var (
	both = []int{1, 32}
	many = []int{32}
)

var variants = []variant{
	{name: "floor", about: "mTLS alone on both sides: how far the figures err", server: "floor", load: "plain", concurrency: both, bare: true},
	{name: "limit", about: "gRPC's own price of a credential, a tap handle and an interceptor at each end, which do nothing", server: "limit", load: "limit", concurrency: both, bare: true},
	{name: "limit-fresh", about: "limit, with a new text of 560 bytes in each call", server: "limit", load: "limit-fresh", concurrency: both, bare: true},
	{name: "limit-signed", about: "limit-fresh, each text signed by the client and verified by the server: what fresh costs at least, unbatched", server: "limit-signed", load: "limit-signed", concurrency: both, bare: true},
	{name: "warm", about: "the same context again and again, audit to a counting sink", server: "guard", load: "warm", concurrency: both},
	{name: "warm-json", about: "warm, each decision a line of JSON and a write", server: "guard-json", load: "warm", concurrency: both},
	{name: "warm-1000", about: "the contexts of 1,000 tenants in turn on one connection", server: "guard", load: "warm-1000", concurrency: many},
	{name: "fresh", about: "new claims for each call, originated by the client", server: "guard", load: "fresh", concurrency: both},
	{name: "forwarded-fresh", about: "a service in the middle forwards a context that it just received, once", server: "guard", load: "forwarded-fresh", concurrency: both},
	{name: "depth3-warm", about: "three earlier hops, the same context again and again", server: "guard", load: "depth3-warm", concurrency: both},
	{name: "depth3-fresh", about: "three earlier hops, shared by 8 consecutive calls with a hop of their own each", server: "guard", load: "depth3-fresh", concurrency: both},
	{name: "stream", about: "a message there and back on an open stream, no annotated field", server: "guard", load: "stream", baseline: "plain-stream", concurrency: both},
	{name: "fresh-unbatched", about: "fresh, each statement signed by itself", server: "guard", load: "fresh", concurrency: many, unbatched: true},
	{name: "forwarded-fresh-unbatched", about: "forwarded-fresh, each statement signed by itself", server: "guard", load: "forwarded-fresh", concurrency: many, unbatched: true},
	{name: "depth3-fresh-unbatched", about: "depth3-fresh, each statement signed by itself", server: "guard", load: "depth3-fresh", concurrency: many, unbatched: true},
	{name: "jwt", about: "go-grpc-middleware's auth interceptor with golang-jwt, the same token in each call", server: "jwt", load: "jwt", concurrency: both, peer: true},
	{name: "jwt-fresh", about: "jwt, a token minted for each call", server: "jwt", load: "jwt-fresh", concurrency: both, peer: true},
	{name: "jwt-opa", about: "jwt, then a prepared query of OPA", server: "jwt-opa", load: "jwt", concurrency: both, peer: true},
	{name: "jwt-3", about: "jwt, three tokens, each in the next", server: "jwt-3", load: "jwt-3", concurrency: both, peer: true},
	{name: "jwt-3-fresh", about: "jwt-3, the last token minted for each call, the others shared by 8", server: "jwt-3", load: "jwt-3-fresh", concurrency: both, peer: true},
	{name: "jwt-svid", about: "the auth interceptor with go-spiffe's validation of JWT-SVIDs, the same token in each call", server: "jwt-svid", load: "jwt", concurrency: both, peer: true},
}

// nearest are variants and the least that anybody could make of them on gRPC.
var nearest = []struct {
	name, limit string
	concurrency int
}{
	{"warm", "limit", 1},
	{"warm", "limit", 32},
	{"fresh", "limit-signed", 1},
	{"fresh-unbatched", "limit-signed", 32},
}

// goal is the most that a figure may be.
type goal struct {
	name        string
	concurrency int // 0 for what is no variant
	most        float64
}

// The names of figures that are not variants.
const (
	boundFigure     = "fresh ÷ (floor + a P-256 signature + a verification)"
	allocFigure     = "allocations added, warm, client + server, without those of recording"
	bytesFigure     = "bytes added on the wire, warm"
	bytes3Figure    = "bytes added on the wire, depth3-warm"
	firstFigure     = "bytes added on the wire, first call with 4 hops"
	contextFigure   = "bytes of server memory per cached context"
	growthFigure    = "MiB of server memory for distinct contexts"
	unbatchedFigure = " ÷ unbatched"
)

// goals are issue 5's "Numbers to reach".
var goals = []goal{
	{"warm", 32, 1.05},
	{"warm", 1, 1.06},
	{"warm-1000", 32, 1.12},
	{"depth3-warm", 32, 1.10},
	{"fresh", 32, 1.8},
	{"forwarded-fresh", 32, 1.8},
	{"depth3-fresh", 32, 2.7},
	{"stream", 1, 1.02},
	{"stream", 32, 1.02},
	{"warm-json", 1, 1.12},
	{"warm-json", 32, 1.12},
	{boundFigure, 1, 1.15},
	{"fresh" + unbatchedFigure, 32, 0.43},
	{"forwarded-fresh" + unbatchedFigure, 32, 0.43},
	{"depth3-fresh" + unbatchedFigure, 32, 0.70},
	{allocFigure, 1, 10},
	{bytesFigure, 1, 32},
	{bytes3Figure, 1, 32},
	{firstFigure, 1, 4800},
	{contextFigure, 0, 4 << 10},
	{growthFigure, 0, 64},
}

// goalOf returns the goal of a figure, and nil where none is set.
func goalOf(name string, concurrency int) *float64 {
	for _, g := range goals {
		if g.name == name && g.concurrency == concurrency {
			return &g.most
		}
	}
	return nil
}
