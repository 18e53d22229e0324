/*
 * The hop chain of SPEC.md, for spin. README.md says what is modelled and what
 * follows from it; main.go runs it.
 *
 * Three honest workloads: gateway originates, orders and inventory receive and
 * forward. The insider is a fourth workload of the same trust domain.
 *
 * Switches, each -D:
 *   NO_AUD, NO_BINDING, NO_PREV   leave that check out
 *   NO_PEER, NO_TARGET            the same
 *   NO_LAST_AUD                   leaves out the aud check of the last hop only
 *   LEAK        the insider knows every statement at once, not only those he was handed
 *   ORIGINATE   policy lets the insider originate too
 *   NO_RELAY    there are no relays
 *   SHARED      a relay writes on a connection on which its workload also signs
 *   REPLAYED    replay is left out of what must hold
 *   WITNESS     the search is for two acceptances that must be possible, not for an attack
 */

mtype = { gateway, orders, inventory, insider, acme, globex, Get, Put };

/* Bounds: statements by each signer, contexts that are kept, hops of a chain. */
#ifndef BY_GATEWAY
#define BY_GATEWAY 2
#endif
#ifndef BY_ORDERS
#define BY_ORDERS 2
#endif
#ifndef BY_INVENTORY
#define BY_INVENTORY 1
#endif
#ifndef BY_INSIDER
#define BY_INSIDER 2
#endif
#define STATEMENTS (BY_GATEWAY + BY_ORDERS + BY_INVENTORY + BY_INSIDER)
#ifndef CONTEXTS
#define CONTEXTS 4
#endif
#ifndef METHODS
#define METHODS 2
#endif
#ifndef HOPS
#define HOPS 4
#endif

/*
 * A statement is its fields; its number stands for its hash (SHA-256 without
 * collisions), 0 for none. Nobody changes a statement or signs in another's
 * name. The insider's interior statements hold neither method nor connection:
 * nobody reads those fields there.
 */
typedef Statement {
	mtype signer;  /* x5t_s256 */
	byte index;
	byte prev;
	mtype aud;
	mtype target;
	byte binding;  /* the connection */
	mtype claims;  /* the tenant; also names the transaction, one each; at index 0 only */
	byte under;    /* not on the wire: the context in which an honest workload forwarded */
};
Statement st[STATEMENTS + 1];
byte last;               /* the newest statement */
bool known[STATEMENTS + 1]; /* the insider knows it */
byte count[5];           /* statements by each signer: by mtype, see N */

/* A context is a chain that an honest workload accepted. It forwards any of them, ever again. */
typedef Context {
	mtype holder;
	byte n;
	byte h[HOPS];
};
Context ctx[CONTEXTS + 1]; /* the last is where a call's chain is put together */
byte contexts;
bool started[2]; /* gateway has started the transaction of acme, of globex */

#define CALL ctx[CONTEXTS]
#define STARTED_AS(s) st[ctx[st[s].under].h[0]].claims /* the transaction in which s was forwarded */
#define N(w) count[(w) - insider]
#define FIRST st[CALL.h[0]]
#define LAST st[CALL.h[CALL.n - 1]]

/*
 * Connections, each a TLS session of its own: 1 to 6 those of honest callers, 7
 * to 9 the insider's, 10 to 12 those of relays: processes that hold the SVID of
 * an honest workload and write on their connection what anybody gives them,
 * such as a proxy beside it.
 */
#define CLIENT(c) ((c) <= 3 || (c) == 10 || (c) == 11 -> gateway : ((c) == 4 || (c) == 5 || (c) == 12 -> orders : ((c) == 6 -> inventory : insider)))
#define SERVER(c) ((c) == 1 || (c) == 7 || (c) == 10 -> orders : ((c) == 3 || (c) == 5 || (c) == 6 -> insider : inventory))
#define OWN(c) ((c) >= 7 && (c) <= 9)
#ifdef NO_RELAY
#define PRESENTED_ON 9
#else
#define PRESENTED_ON 12
#endif
#ifdef SHARED
#define EXPORTER(c) ((c) == 10 -> 1 : ((c) == 11 -> 2 : ((c) == 12 -> 4 : (c))))
#else
#define EXPORTER(c) (c)
#endif

/* The checks; each number is the step of SPEC.md, section 6. */
#define INDEX_OK(k) (st[CALL.h[k]].index == (k) && (((k) == 0) == (st[CALL.h[k]].claims != 0))) /* 3.1 CHAIN_BROKEN */
#ifdef NO_PREV
#define PREV_OK(p, s) true
#else
#define PREV_OK(p, s) (st[s].prev == (p))               /* 3.1 CHAIN_BROKEN */
#endif
#ifdef NO_AUD
#define HANDED_TO(w) true
#define HANDED_OK(p, s) true
#else
#define HANDED_TO(w) (LAST.aud == (w))
#define HANDED_OK(p, s) (st[p].aud == st[s].signer)     /* 3.4 AUDIENCE_MISMATCH */
#endif
#if defined(NO_AUD) || defined(NO_LAST_AUD)
#define AUD_OK(me) true
#else
#define AUD_OK(me) (LAST.aud == (me))                   /* 3.2 AUDIENCE_MISMATCH */
#endif
#ifdef NO_PEER
#define PEER_OK(peer) true
#else
#define PEER_OK(peer) (LAST.signer == (peer))           /* 3.2 SIGNER_NOT_PEER */
#endif
#ifdef NO_TARGET
#define TARGET_OK(m) true
#else
#define TARGET_OK(m) (LAST.target == (m))               /* 3.2 TARGET_MISMATCH */
#endif
#ifdef NO_BINDING
#define BINDING_OK(c) true
#else
#define BINDING_OK(c) (LAST.binding == EXPORTER(c))     /* 3.2 CHANNEL_MISMATCH */
#endif
#ifdef ORIGINATE
#define ORIGIN_OK true
#else
#define ORIGIN_OK (FIRST.signer != insider)             /* 5 ORIGINATION_NOT_ALLOWED */
#endif
#define LINKED(j, k) (PREV_OK(CALL.h[j], CALL.h[k]) && HANDED_OK(CALL.h[j], CALL.h[k]))
#define ON_CONNECTION(c) (PEER_OK(CLIENT(c)) && AUD_OK(SERVER(c)) && BINDING_OK(c))
#define CHECKED(c, m) (ON_CONNECTION(c) && TARGET_OK(m) && ORIGIN_OK)

inline Sign(by, previous, place, handed, method, exporter, content, from) {
	last++;
	st[last].signer = by;
	st[last].prev = previous;
	st[last].index = place;
	st[last].aud = handed;
	st[last].target = method;
	st[last].binding = exporter;
	st[last].claims = content;
	st[last].under = from;
	N(by)++;
	CALL.h[CALL.n] = last;
	CALL.n++;
#ifdef LEAK
	known[last] = true;
#endif
	if
	:: (by) == insider -> known[last] = true
	:: else
	fi;
	printf("%e signs s%d: index %d, ", st[last].signer, last, st[last].index);
	if
	:: (content) -> printf("claims of tenant %e, ", st[last].claims)
	:: else -> printf("prev s%d, ", st[last].prev)
	fi;
	printf("aud %e", st[last].aud);
	if
	:: (exporter) -> printf(", target %e, binding of connection %d\n", st[last].target, st[last].binding)
	:: else -> printf("\n")
	fi
}

inline PrintChain() {
	k = 0;
	do
	:: k < CALL.n -> printf(" s%d", CALL.h[k]); k++
	:: else -> break
	od;
	k = 0
}

/*
 * What must hold of a chain that was accepted on connection c for method m. The
 * honest workloads' own records decide, not the fields that the checks compare:
 * started is what gateway did, ctx[under] is what a forwarder held when it signed.
 */
inline Judge(c, m, relayed) {
	/* Authentication: gateway's claims are of a transaction that gateway started. */
	if
	:: FIRST.signer == gateway && !started[FIRST.claims == globex] ->
		printf("VIOLATED authentication: gateway never started this transaction\n"); bad = true
	:: else
	fi;
	/* Path integrity, at every hop of an honest workload. */
	k = 0;
	do
	:: k < CALL.n && st[CALL.h[k]].signer != insider ->
		x = CALL.h[k];
		/* It went to whoever stands next on the path. */
		to = (k + 1 < CALL.n -> st[CALL.h[k + 1]].signer : SERVER(c));
		if
		:: st[x].aud != to ->
			printf("VIOLATED path integrity: %e handed s%d to %e, not to %e\n", st[x].signer, x, st[x].aud, to); bad = true
		:: else
		fi;
		/* Its signer handed that one the transaction that the claims are of, */
		if
		:: k > 0 ->
			y = 1;
			do
			:: y <= last && !(st[y].signer == st[x].signer && st[y].aud == to && st[y].index > 0 && STARTED_AS(y) == FIRST.claims) -> y++
			:: else -> break
			od;
			if
			:: y > last ->
				printf("VIOLATED path integrity: %e never handed the transaction of %e to %e; s%d is of that of %e\n",
					st[x].signer, FIRST.claims, to, x, STARTED_AS(x)); bad = true
			:: else
			fi;
			y = 0
		:: else
		fi;
#ifndef NO_PREV
		/* and it was signed under just these hops. (Left out with the prev check, so that the attack shown is one that matters.) */
		if
		:: k > 0 && ctx[st[x].under].n != k ->
			printf("VIOLATED path integrity: %e signed s%d at another place of the path\n", st[x].signer, x); bad = true
		:: else
		fi;
		y = 0;
		do
		:: y < k ->
			if
			:: ctx[st[x].under].h[y] != CALL.h[y] ->
				printf("VIOLATED path integrity: %e signed s%d under other hops\n", st[x].signer, x); bad = true
			:: else
			fi;
			y++
		:: else -> break
		od;
		y = 0;
#endif
		k++
	:: k < CALL.n && st[CALL.h[k]].signer == insider -> k++
	:: else -> break
	od;
	k = 0; x = 0; to = 0;
	/* Agreement: the last hop, if an honest workload's, was made by the peer for this call. */
	if
	:: LAST.signer != insider && (LAST.signer != CLIENT(c) || LAST.target != m || LAST.binding != EXPORTER(c)) ->
		printf("VIOLATED agreement: %e signed s%d for method %e on connection %d\n", LAST.signer, CALL.h[CALL.n - 1], LAST.target, LAST.binding); bad = true
	:: else
	fi;
#ifndef REPLAYED
	/* Replay: an honest workload's last hop comes from itself. */
	if
	:: relayed && LAST.signer != insider ->
		printf("VIOLATED replay: it is not %e that presents s%d here\n", LAST.signer, CALL.h[CALL.n - 1]); bad = true
	:: else
	fi;
#endif
#ifdef WITNESS
	if
	:: bad -> assert(false) /* not the witness that is sought */
	:: else
	fi;
	if
	:: SERVER(c) == inventory && CALL.n == 2 && FIRST.signer == gateway && st[CALL.h[1]].signer == orders && !relayed -> seen[0] = true
	:: SERVER(c) == inventory && CALL.n == 3 && st[CALL.h[1]].signer == insider && st[CALL.h[2]].signer == orders -> seen[1] = true
	:: else
	fi;
	if
	:: seen[0] && seen[1] -> printf("VIOLATED nothing: the witness\n"); bad = true
	:: else
	fi;
#endif
	assert(!bad)
}

/* An honest holder keeps a context while there is room; one that it has already it keeps once. */
inline Keep(who) {
	k = 0;
	do
	:: k < contexts ->
		x = 0;
		do
		:: x < CALL.n && ctx[k].holder == who && ctx[k].n == CALL.n && ctx[k].h[x] == CALL.h[x] -> x++
		:: else -> break
		od;
		if
		:: x == CALL.n -> break
		:: else -> k++
		fi
	:: else -> break
	od;
	if
	:: k == contexts && contexts < CONTEXTS && CALL.n < HOPS ->
		ctx[k].holder = who;
		ctx[k].n = CALL.n;
		x = 0;
		do
		:: x < CALL.n -> ctx[k].h[x] = CALL.h[x]; x++
		:: else -> break
		od;
		contexts++
	:: else
	fi;
	k = 0; x = 0
}

/* The chain in CALL arrives on connection c for method m. relayed: it is the insider who presents it. */
inline Deliver(c, m, relayed) {
	d_step {
		if
		:: relayed && OWN(c) -> printf("insider presents"); PrintChain(); printf(" to %e, method %e, connection %d\n", SERVER(c), m, c)
		:: relayed && !OWN(c) -> printf("insider presents"); PrintChain(); printf(" to %e, method %e, through a relay of %e, connection %d\n", SERVER(c), m, CLIENT(c), c)
		:: else -> printf("%e calls %e with", CLIENT(c), SERVER(c)); PrintChain(); printf(", method %e, connection %d\n", m, c)
		fi;
		if
		:: SERVER(c) == insider ->
			do
			:: k < CALL.n -> known[CALL.h[k]] = true; k++
			:: else -> break
			od;
			k = 0
		:: else ->
			assert(CHECKED(c, m)); /* what honest workloads send is never refused */
			printf("%e accepts\n", SERVER(c));
			Judge(c, m, relayed);
			Keep(SERVER(c))
		fi
	}
}

inline Done() {
	d_step {
		do
		:: CALL.n > 0 -> CALL.n--; CALL.h[CALL.n] = 0
		:: else -> break
		od;
		c = 0; m = 0; k = 0; x = 0; y = 0; to = 0
	}
}

inline Method() {
	if
	:: m = Get
	:: last > 0 && METHODS > 1 -> m = Put /* they are alike: what is signed first is for Get */
	fi
}

/*
 * An honest call is made, carried and judged in one step: the insider learns by
 * it, and nothing that he knows gets less by waiting. A chain that would be
 * refused changes nothing, so the insider presents only such as are accepted;
 * where a choice has come to a refusal, that run ends there.
 */
init {
	byte c, k, x, y;
	mtype m, to;
	bool bad;
#ifdef WITNESS
	bool seen[2];
#endif
end:
	do
	:: atomic { /* gateway originates, or calls again in the same transaction */
		N(gateway) < BY_GATEWAY ->
		if
		:: m = acme; started[0] = true
		:: started[0] -> m = globex; started[1] = true /* either may be first: they are alike */
		fi;
		to = m;
		Method();
		select(c : 1 .. 3);
		Sign(gateway, 0, 0, SERVER(c), m, EXPORTER(c), to, 0);
		to = 0;
		Deliver(c, m, false);
		goto done
	}
	:: atomic { /* orders or inventory forwards a context that it holds */
		contexts > 0 ->
		select(k : 0 .. contexts - 1);
		if
		:: ctx[k].holder == orders && N(orders) < BY_ORDERS ->
			if
			:: c = 4
			:: c = 5
			fi
		:: ctx[k].holder == inventory && N(inventory) < BY_INVENTORY -> c = 6
		:: else -> goto done
		fi;
		Method();
		d_step {
			do
			:: CALL.n < ctx[k].n -> CALL.h[CALL.n] = ctx[k].h[CALL.n]; CALL.n++
			:: else -> break
			od;
			Sign(CLIENT(c), CALL.h[CALL.n - 1], CALL.n, SERVER(c), m, EXPORTER(c), 0, k);
			k = 0
		}
		Deliver(c, m, false);
		goto done
	}
	:: atomic { /* the insider signs a statement that is to stand within a chain */
		N(insider) < BY_INSIDER ->
		select(x : 0 .. last);
		if
		:: x == 0 ->
#ifdef ORIGINATE
			if
			:: m = acme
			:: m = globex
			fi
#else
			goto done
#endif
		:: x > 0 && known[x] && st[x].index < HOPS - 2
		:: else -> goto done
		fi;
		if
		:: to = orders
		:: to = inventory
		:: to = insider
		fi;
		/* not the same twice */
		y = 1;
		do
		:: y <= last && !(st[y].signer == insider && st[y].prev == x && st[y].aud == to && st[y].claims == m && st[y].binding == 0) -> y++
		:: else -> break
		od;
		if
		:: y > last
		:: else -> goto done
		fi;
		d_step {
			Sign(insider, x, (x == 0 -> 0 : st[x].index + 1), to, 0, 0, m, 0)
		}
		goto done
	}
	:: atomic { /* the insider presents a chain of what he knows, on a connection of his or through a relay */
		last > 0;
		do
		:: CALL.n < HOPS ->
			x = 1;
			do
			:: x < last -> x++
			:: known[x] && st[x].index == CALL.n -> break
			:: else -> goto done
			od;
			CALL.h[CALL.n] = x;
			CALL.n++;
			if
			:: INDEX_OK(CALL.n - 1) && (CALL.n == 1 || LINKED(CALL.n - 2, CALL.n - 1))
			:: else -> goto done
			fi
		:: break
		od;
		x = 0;
		if
		:: CALL.n > 0 -> /* and leaves it at that */
			select(c : 7 .. PRESENTED_ON);
			if
			:: ON_CONNECTION(c) -> Method()
			:: else -> goto done
			fi
		:: CALL.n > 0 && CALL.n < HOPS && N(insider) < BY_INSIDER && HANDED_TO(insider) -> /* or ends it with a hop for this call */
			select(c : 7 .. 9);
			Method();
			d_step { Sign(insider, CALL.h[CALL.n - 1], CALL.n, SERVER(c), m, EXPORTER(c), 0, 0) }
#ifdef ORIGINATE
		:: CALL.n == 0 && N(insider) < BY_INSIDER -> /* or originates */
			select(c : 7 .. 9);
			if
			:: to = acme
			:: to = globex
			fi;
			Method();
			d_step { Sign(insider, 0, 0, SERVER(c), m, EXPORTER(c), to, 0); to = 0 }
#endif
		:: else -> goto done
		fi;
		if
		:: CHECKED(c, m) /* the receiver accepts; the links were checked above */
		:: else -> goto done
		fi;
		Deliver(c, m, true);
		goto done
	}
	:: atomic { false;
done:		Done()
	}
	od
}
