"""What a real device would spend: FLOPs, bytes of memory, bytes of messages; and how far the models drift apart."""
