# A "database": answers every connection on port 5432 with one row. Builtins only: the image holds no perl modules.
$| = 1;
$SIG{TERM} = sub { print "db: stopping\n"; exit 0 };
socket(my $server, 2, 1, 0) or die "socket: $!";
setsockopt($server, 1, 2, 1);
bind($server, pack('S n a4 x8', 2, 5432, "\0\0\0\0")) or die "bind: $!";
listen($server, 16) or die "listen: $!";
print "db: ready on port 5432\n";
while (accept(my $client, $server)) {
    print $client "7 ships in the harbour\n";
    close $client;
    print "db: answered\n";
}
