# A web server on port 80 whose page is what "db" says. Builtins only: the image holds no perl modules.
$| = 1;
$SIG{TERM} = sub { print "web: stopping\n"; exit 0 };
socket(my $server, 2, 1, 0) or die "socket: $!";
setsockopt($server, 1, 2, 1);
bind($server, pack('S n a4 x8', 2, 80, "\0\0\0\0")) or die "bind: $!";
listen($server, 16) or die "listen: $!";
print "web: ready on port 80\n";
while (accept(my $client, $server)) {
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    my ($row, $ip) = ("", "nowhere");
    if (my $address = gethostbyname('db')) {
        $ip = join '.', unpack('C4', $address);
        socket(my $db, 2, 1, 0) or die "socket: $!";
        $row = connect($db, pack('S n a4 x8', 2, 5432, $address)) ? <$db> : "cannot connect: $!\n";
        print "web: asked db at $ip\n";
    }
    my $page = "web found db at $ip, which says: $row";
    print $client "HTTP/1.0 200 OK\r\nContent-Length: " . length($page) . "\r\n\r\n$page";
    close $client;
}
